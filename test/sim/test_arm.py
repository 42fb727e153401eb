"""The simulated arm moves like a velocity-controlled one."""

import numpy as np
import pytest

from safe_vla_ros.sim.arm import COMMAND_TIMEOUT_S, MAX_LEAD_M, STEP_S, SimulatedArm
from safe_vla_ros.sim.tasks import TASKS


@pytest.fixture(scope='module')
def arm():
    arm = SimulatedArm('reach', seed=3)
    yield arm
    arm.close()


def drive(arm, velocity, steps, start_s=10.0, *, repeat=True):
    """Command a velocity and step; returns the time afterwards."""
    now_s = start_s
    arm.command_twist(np.asarray(velocity), now_s)
    for _ in range(steps):
        if repeat:
            arm.command_twist(np.asarray(velocity), now_s)
        arm.step(now_s)
        now_s += STEP_S
    return now_s


def test_same_seed_gives_the_same_scene(arm):
    arm.reset(11)
    first = arm.hidden_state()
    arm.reset(12)
    other = arm.hidden_state()
    arm.reset(11)
    np.testing.assert_array_equal(arm.hidden_state(), first)
    assert not np.allclose(other, first)


def test_reset_leaves_the_global_random_generator_alone(arm):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    arm.reset(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_a_twist_moves_the_hand_at_its_speed(arm):
    arm.reset(0)
    drive(arm, [0.0, 0.1, 0.0], 20)
    before = arm.ee_position
    drive(arm, [0.0, 0.1, 0.0], 40, start_s=20.0)
    moved = arm.ee_position - before
    assert moved[1] == pytest.approx(0.1 * 40 * STEP_S, rel=0.1)
    assert np.abs(moved[[0, 2]]).max() < 0.01


def test_the_target_never_leads_the_hand_by_more_than_its_limit(arm):
    arm.reset(0)
    now_s = 10.0
    for _ in range(60):
        arm.command_twist(np.array([0.0, 0.0, -0.8]), now_s)
        arm.step(now_s)
        lead = np.linalg.norm(arm.snapshot().mocap_pos[0] - arm.ee_position)
        assert lead <= MAX_LEAD_M + 0.011  # the hand moves during the step, too
        now_s += STEP_S


def test_without_commands_the_arm_stops_and_stays(arm):
    arm.reset(0)
    now_s = drive(arm, [0.1, 0.0, 0.0], 30)
    timeout_steps = round(COMMAND_TIMEOUT_S / STEP_S) + 1
    for _ in range(timeout_steps + 40):
        arm.step(now_s)
        now_s += STEP_S
    at_rest = arm.ee_position
    for _ in range(40):
        arm.step(now_s)
        now_s += STEP_S
    assert np.linalg.norm(arm.ee_position - at_rest) < 1e-3


@pytest.mark.parametrize('twist', [[np.nan, 0, 0], [0, np.inf, 0], [0.1, 0.2], [[0, 0, 0]]])
def test_a_bad_twist_is_refused_and_changes_nothing(arm, twist):
    arm.reset(0)
    with pytest.raises(ValueError, match='three finite'):
        arm.command_twist(np.asarray(twist, dtype=float), 1.0)
    before = arm.ee_position
    arm.step(1.0)
    assert np.linalg.norm(arm.ee_position - before) < 1e-3


def test_a_bad_gripper_opening_is_refused(arm):
    with pytest.raises(ValueError, match='finite'):
        arm.command_gripper(float('nan'))


def test_the_gripper_closes_and_opens(arm):
    arm.reset(0)
    arm.command_gripper(0.0)
    drive(arm, [0, 0, 0], 40)
    closed = float(np.ptp(arm.gripper_positions))
    arm.command_gripper(1.0)
    drive(arm, [0, 0, 0], 40)
    assert abs(float(np.ptp(arm.gripper_positions)) - closed) > 0.01


def test_an_experts_plan_is_undone(arm):
    arm.reset(4)
    drive(arm, [0.05, 0.05, 0.0], 10)
    before, state = arm.ee_position, arm.save()
    translation, opening = arm.plan_with_expert(state, 8, period_s=0.05, max_speed_m_s=0.4)
    np.testing.assert_array_equal(arm.ee_position, before)
    np.testing.assert_array_equal(arm.save().physics, state.physics)
    assert translation.shape == (8, 3)
    assert opening.shape == (8,)
    assert np.linalg.norm(translation, axis=1).max() <= 0.4 * 0.05 + 1e-9


def test_views_have_the_cameras_sizes_and_show_something(arm):
    arm.reset(0)
    corner, gripper = arm.render('corner'), arm.render('gripper')
    assert corner.shape == (224, 224, 3)
    assert gripper.shape == (112, 112, 3)
    assert corner.dtype == np.uint8
    assert corner.std() > 20


def test_an_old_view_can_be_rendered_later(arm):
    arm.reset(0)
    view = arm.snapshot()
    then = arm.render('corner')
    drive(arm, [0.3, 0.0, 0.0], 40)
    np.testing.assert_array_equal(arm.render('corner', view), then)
    assert (arm.render('corner') != then).any()


def test_an_unknown_task_is_named_with_the_known_ones():
    with pytest.raises(KeyError, match='reach'):
        SimulatedArm('juggle')


@pytest.mark.parametrize('factor', [0.0, -1.0, float('nan')])
def test_a_real_time_factor_must_be_positive(factor):
    with pytest.raises(ValueError, match='real_time_factor'):
        SimulatedArm('reach', real_time_factor=factor)


def test_every_task_has_its_own_sentence():
    assert len({task.sentence for task in TASKS.values()}) == len(TASKS)
