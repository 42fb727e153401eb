"""The simulated robot's time, episodes and stopping, without threads and ROS."""

from __future__ import annotations

import time

import numpy as np
import pytest

from safe_vla_ros.sim.arm import STEP_S
from safe_vla_ros.sim.robot_loop import LoopSettings, RobotLoop, _Handover

FAST_M_S = 0.25
STILL = np.zeros(3)


class Listener:
    def __init__(self):
        self.clock, self.states, self.captures, self.episodes = [], [], [], []

    def on_clock(self, now_s):
        self.clock.append(now_s)

    def on_state(self, state):
        self.states.append(state)

    def on_capture(self, arm, stamp_s):
        self.captures.append(stamp_s)

    def on_episode(self, event):
        self.episodes.append(event)


def simulated(arm, **settings):
    """Make a loop in simulated time, in which a test is the thread."""
    listener = Listener()
    loop = RobotLoop(listener, LoopSettings(publish_clock=True, **settings))
    loop._next = _Handover(arm)
    return loop, listener


def begin(loop, arm, seed, init_state=None):
    loop._next = _Handover(arm, (seed, init_state))


def run(loop, duration_s, each_step=lambda: None):
    for _ in range(round(duration_s / STEP_S)):
        each_step()
        for _ in range(loop._settings.ticks_per_step):
            loop.advance()


def test_simulated_time_starts_above_zero_and_moves_at_200_hz_of_either_time(arm):
    for factor in (0.25, 1.0, 4.0):
        loop, listener = simulated(arm, real_time_factor=factor)
        run(loop, 0.5)
        gaps_s = np.diff(listener.clock)
        assert listener.clock[0] > 0
        assert gaps_s.min() > 0
        assert gaps_s.max() <= 1 / 200 + 1e-9
        assert gaps_s.max() / factor <= 1 / 200 + 1e-9


def test_pictures_and_states_come_at_their_rates(arm):
    loop, listener = simulated(arm, camera_rate_hz=20.0, state_rate_hz=50.0)
    run(loop, 4.0)
    assert len(listener.captures) == pytest.approx(80, abs=2)
    assert len(listener.states) == pytest.approx(200, abs=2)
    np.testing.assert_allclose(np.diff(listener.captures), 0.05, atol=STEP_S)


def test_a_twist_moves_and_turns_the_hand(arm):
    now_s = [100.0]
    settings = LoopSettings()
    loop = RobotLoop(Listener(), settings, wall_s=lambda: now_s[0])
    loop._next = _Handover(arm)
    loop.advance()
    start_m, start = arm.ee_position, arm.ee_quaternion_xyzw
    for _ in range(round(0.5 / STEP_S)):
        loop.command_twist(np.array([0.0, 0.2, 0.0]), np.array([0.0, 0.0, 0.5]))
        now_s[0] += STEP_S
        loop.advance()
    # 0.5 s at 0.2 m/s and 0.5 rad/s, less the lag of the hand behind its set-point
    assert 0.05 < (arm.ee_position - start_m)[1] < 0.1
    assert np.cos(0.125) < abs(start @ arm.ee_quaternion_xyzw) < np.cos(0.05)


def drive_and_stop(loop, arm, stop):
    run(loop, 0.6, lambda: loop.command_twist(np.array([0.0, FAST_M_S, 0.0]), STILL))
    last_command_m = arm.ee_position
    run(loop, 2.0, stop)
    return float(np.linalg.norm(arm.ee_position - last_command_m))


def test_the_stopping_distance_is_small_with_zeros_and_bounded_with_silence(arm, record_property):
    loop, _ = simulated(arm)
    after_zeros_m = drive_and_stop(loop, arm, lambda: loop.command_twist(STILL, STILL))
    arm.reset(0, init_state=0)
    loop, _ = simulated(arm)
    after_silence_m = drive_and_stop(loop, arm, lambda: None)
    record_property('stopping_distance_after_zeros_m', after_zeros_m)
    record_property('stopping_distance_after_silence_m', after_silence_m)
    assert after_zeros_m < 0.03
    # silence adds the 0.1 s in which the last twist still holds
    assert after_zeros_m < after_silence_m < FAST_M_S * (0.1 + STEP_S) + 0.03


def test_time_goes_on_without_an_arm(arm):
    loop, listener = simulated(arm)
    run(loop, 0.2)
    loop._next = _Handover(None)
    run(loop, STEP_S)
    moved, states = len(listener.clock), len(listener.states)
    where = arm.joint_positions
    run(loop, 0.2, lambda: loop.command_twist(np.array([0.0, 0.2, 0.0]), STILL))
    assert len(listener.clock) > moved
    assert len(listener.states) == states
    np.testing.assert_array_equal(arm.joint_positions, where)
    loop._next = _Handover(arm)
    run(loop, 0.2)
    assert len(listener.states) > states


def test_an_episode_begins_and_ends_at_its_time_limit(arm):
    loop, listener = simulated(arm, episode_duration_s=0.5)
    begin(loop, arm, 7, 3)
    run(loop, 1.0)
    assert [event.kind for event in listener.episodes] == ['started', 'timeout']
    assert listener.episodes[1].elapsed_s == pytest.approx(0.5, abs=1e-9)
    for event in listener.episodes:
        assert (event.task, event.seed, event.init_state) == ('libero_spatial/0', 7, 3)
        assert event.episode == 1


def test_without_a_limit_of_its_own_an_episode_has_the_benchmarks(arm):
    loop, listener = simulated(arm)
    begin(loop, arm, 7)
    run(loop, arm.task.max_duration_s + 0.1)
    assert listener.episodes[-1].kind == 'timeout'
    assert listener.episodes[-1].elapsed_s == pytest.approx(arm.task.max_duration_s)


def test_success_ends_an_episode_once_and_a_new_one_aborts_a_running_one(arm):
    loop, listener = simulated(arm)
    begin(loop, arm, 7)
    run(loop, 0.1)
    begin(loop, arm, 8)
    run(loop, 0.1)
    arm.success = True
    run(loop, 0.1)
    kinds = [(event.kind, event.seed) for event in listener.episodes]
    assert kinds == [('started', 7), ('aborted', 7), ('started', 8), ('success', 8)]


@pytest.mark.parametrize(('asked_for', 'lifted'), [('arm', 'asked'), ('other_arm', 'other')])
def test_the_end_of_an_episode_tells_which_bowl_was_first_lifted(asked_for, lifted, request):
    arm = request.getfixturevalue(asked_for)
    loop, listener = simulated(arm, episode_duration_s=0.3)
    begin(loop, arm, 7, 0)
    run(loop, 0.1)
    arm.scene.data.joint('akita_black_bowl_1_joint0').qpos[2] += 0.1
    run(loop, 0.5)
    assert [event.first_lifted for event in listener.episodes] == [None, lifted]
    begin(loop, arm, 8)
    run(loop, 0.5)
    assert listener.episodes[-1].first_lifted is None


def test_taking_the_arm_away_aborts_the_episode(arm):
    loop, listener = simulated(arm)
    begin(loop, arm, 7)
    run(loop, 0.1)
    loop._next = _Handover(None)
    run(loop, 0.1)
    assert [event.kind for event in listener.episodes] == ['started', 'aborted']


def test_an_error_in_physics_ends_the_thread_and_is_kept(arm):
    class Broken(Listener):
        def on_capture(self, arm, stamp_s):
            msg = 'no camera'
            raise RuntimeError(msg)

    loop = RobotLoop(Broken(), LoopSettings())
    loop.start()
    loop.take(arm)
    deadline_s = time.monotonic() + 5.0
    while loop.error is None and time.monotonic() < deadline_s:
        time.sleep(0.005)
    loop.stop()
    assert str(loop.error) == 'no camera'
