"""Every disturbance of the stress set does what it says, and leaves nothing behind."""

import math

import numpy as np
import pytest

from safe_vla_ros.runtime import StateName
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.disturbances import DISTURBANCES
from safe_vla_ros.sim.expert_policy import EXPERT_SPEC, ExpertPolicy
from safe_vla_ros.sim.lifting import LiftWatch
from safe_vla_ros.sim.rollout import Latency, run_episode
from safe_vla_ros.sim.tasks import BOWLS

SETTINGS = resolve_episode(EXPERT_SPEC, {'pruning.method': 'none'})


class Runtime:
    """Remembers what it was told."""

    def __init__(self):
        self.paused = False
        self.instruction = ''

    def pause(self, paused):
        self.paused = paused

    def set_instruction(self, text):
        self.instruction = text


def picture(arm, camera='agentview'):
    arm.step(100.0)
    return arm.render(camera).astype(int)


def difference(first, second):
    return float(np.abs(first - second).mean())


def play(arm, *bystanders):
    """Let the expert run an episode; returns it and which bowl was lifted first."""
    expert, watch = ExpertPolicy(noise=0.0, seed=1), LiftWatch()

    def see(arm, frame, proprio):
        expert.see(frame.stamp_s, frame.state)
        watch(arm, frame, proprio)

    result = run_episode(
        arm,
        expert,
        settings=SETTINGS,
        latency=Latency(),
        seed=1,
        on_frame=see,
        blind=True,
        bystanders=bystanders,
    )
    return result, watch.first


@pytest.mark.parametrize('name', DISTURBANCES)
def test_a_disturbance_can_be_undone(arm, name):
    before = picture(arm), picture(arm, 'wrist')
    disturbance, runtime = DISTURBANCES[name](arm, 5), Runtime()
    for tick in range(1100):
        disturbance.step(arm, runtime, 0.01 * tick)
    disturbance.undo()
    arm.ask('libero_spatial/0')
    arm.reset(0, init_state=0)
    after = picture(arm), picture(arm, 'wrist')
    np.testing.assert_array_equal(before, after)
    assert not runtime.paused


@pytest.mark.parametrize('seed', range(4))
def test_the_asked_bowl_goes_six_centimetres_to_where_room_is(other_arm, seed):
    arm = other_arm
    mover = DISTURBANCES['bowl_moved'](arm, seed)
    starts = {bowl: arm.scene.position_of(bowl) for bowl in BOWLS}
    for tick in range(160):
        mover.step(arm, Runtime(), 0.01 * tick)
        arm.step(100.0)
        if tick == 59:
            np.testing.assert_allclose(arm.scene.position_of(BOWLS[1]), starts[BOWLS[1]], atol=2e-3)
    moved = arm.scene.position_of(BOWLS[1]) - starts[BOWLS[1]]
    assert np.linalg.norm(moved[:2]) == pytest.approx(0.06, abs=0.01)
    assert abs(moved[2]) < 0.01
    np.testing.assert_allclose(arm.scene.position_of(BOWLS[0]), starts[BOWLS[0]], atol=2e-3)


def test_a_bowl_near_the_hand_is_left_alone(arm):
    mover = DISTURBANCES['bowl_moved'](arm, 0)
    arm.scene.place(BOWLS[0], arm.ee_position - np.array([0.0, 0.0, 0.05]))
    arm.step(100.0)
    there = arm.scene.position_of(BOWLS[0])
    mover.step(arm, Runtime(), 0.8)
    arm.step(100.0)
    assert np.linalg.norm(arm.scene.position_of(BOWLS[0]) - there) < 0.01


def test_the_expert_follows_a_bowl_that_is_moved(arm):
    result, _ = play(arm, DISTURBANCES['bowl_moved'](arm, 3))
    assert result.success


def test_the_camera_shakes_about_where_it_was_and_the_wrist_camera_does_not(arm):
    straight, own = picture(arm), arm.model.cam_quat.copy()
    shaker = DISTURBANCES['camera_shaken'](arm, 1)
    changes = []
    for tick in range(20):
        shaker.step(arm, Runtime(), 0.05 * tick)
        changes.append(difference(picture(arm), straight))
    turned = (arm.model.cam_quat != own).any(axis=1)
    shaker.undo()
    assert min(changes) > 0.2
    assert list(np.flatnonzero(turned)) == [arm.model.camera('agentview').id]
    assert difference(picture(arm), straight) < 0.2


@pytest.mark.parametrize('seed', [0, 1, 2, 3])
def test_the_camera_pans_by_three_degrees_and_stays(arm, seed):
    panner = DISTURBANCES['camera_panned'](arm, seed)
    camera = arm.model.camera('agentview').id

    def axis():
        arm.step(100.0)
        return arm.snapshot().cam_xmat[camera].reshape(3, 3)[:, 2].copy()

    panner.step(arm, Runtime(), 0.4)
    start = axis()
    panner.step(arm, Runtime(), 2.0)
    half = axis()
    panner.step(arm, Runtime(), 5.0)
    end = axis()
    panner.undo()
    assert math.degrees(math.acos(start @ half)) == pytest.approx(1.5, abs=0.01)
    assert math.degrees(math.acos(start @ end)) == pytest.approx(3.0, abs=0.01)
    # The horizon stays level: the camera turns about its own vertical.
    assert start[2] == pytest.approx(end[2], abs=0.01)


def test_the_lights_go_down_after_a_second(arm):
    before = picture(arm)
    lights = DISTURBANCES['lights_changed'](arm, 0)
    lights.step(arm, Runtime(), 0.9)
    assert difference(picture(arm), before) < 0.2
    lights.step(arm, Runtime(), 1.0)
    after = picture(arm)
    lights.undo()
    share = after.mean(axis=(0, 1)) / before.mean(axis=(0, 1))
    assert (share < 0.8).all()
    assert share[0] > share[1] > share[2]


def test_a_person_hides_the_table_for_a_moment(arm):
    free = picture(arm)
    person = DISTURBANCES['person_passes'](arm, 0)
    hidden = {}
    for time_s in (0.4, 1.0, 1.7, 2.6):
        person.step(arm, Runtime(), time_s)
        hidden[time_s] = float((np.abs(picture(arm) - free).max(axis=2) > 20).mean())
    person.undo()
    assert hidden[0.4] < 0.02
    assert hidden[1.7] > 0.8
    assert hidden[2.6] < 0.02
    assert difference(picture(arm), free) < 0.2


def test_a_stop_lasts_three_seconds_and_the_arm_goes_on(arm):
    result, _ = play(arm, DISTURBANCES['stopped'](arm, 0))
    assert result.success
    assert result.halts[StateName.PAUSED] == pytest.approx(3.0, abs=0.03)


def test_a_new_instruction_is_followed_and_judged(arm):
    result, lifted = play(arm, DISTURBANCES['instruction_changed'](arm, 0))
    assert result.success
    assert arm.task.other_bowl
    assert lifted == 'asked'
