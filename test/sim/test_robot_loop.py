"""The simulated robot's time, episodes and stopping, without threads and ROS."""

from __future__ import annotations

import time

import numpy as np
import pytest

from safe_vla_ros.sim.arm import STEP_S, SimulatedArm
from safe_vla_ros.sim.robot_loop import LoopSettings, RobotLoop

FAST_M_S = 0.4


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


@pytest.fixture(scope='module')
def arm():
    return SimulatedArm('reach', seed=3)


def simulated(arm, **settings):
    """Make a loop in simulated time, in which a test is the thread."""
    arm.reset(3)
    listener = Listener()
    return RobotLoop(
        arm,
        listener,
        LoopSettings(publish_clock=True, **settings),
    ), listener


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


def test_a_twist_moves_the_hand_at_its_speed_in_both_clocks(arm):
    for factor in (1.0, 0.5):
        arm = SimulatedArm('reach', seed=3, real_time_factor=factor)
        now_s = [100.0]
        settings = LoopSettings(real_time_factor=factor)
        loop = RobotLoop(arm, Listener(), settings, wall_s=lambda now_s=now_s: now_s[0])
        start_m = arm.ee_position
        for _ in range(round(0.5 / settings.step_wall_s)):
            loop.command_twist(np.array([0.0, 0.2, 0.0]))
            now_s[0] += settings.step_wall_s
            loop.advance()
        # 0.5 s of the commands' clock at 0.2 m/s, less the lag of the hand behind its target
        assert 0.06 < (arm.ee_position - start_m)[1] < 0.11


def drive_and_stop(loop, arm, stop):
    run(loop, 0.4, lambda: loop.command_twist(np.array([0.0, FAST_M_S, 0.0])))
    last_command_m = arm.ee_position
    run(loop, 1.0, stop)
    return float(np.linalg.norm(arm.ee_position - last_command_m))


def test_the_stopping_distance_is_small_with_zeros_and_bounded_with_silence(arm, record_property):
    loop, _ = simulated(arm)
    after_zeros_m = drive_and_stop(loop, arm, lambda: loop.command_twist(np.zeros(3)))
    loop, _ = simulated(arm)
    after_silence_m = drive_and_stop(loop, arm, lambda: None)
    record_property('stopping_distance_after_zeros_m', after_zeros_m)
    record_property('stopping_distance_after_silence_m', after_silence_m)
    assert after_zeros_m < 0.03
    # silence adds the 0.1 s in which the last twist still holds
    assert after_zeros_m < after_silence_m < FAST_M_S * (0.1 + STEP_S) + 0.03


def test_an_episode_starts_anew_and_ends_at_its_time_limit(arm):
    loop, listener = simulated(arm, episode_duration_s=0.5)
    loop._next = (arm, 7)
    run(loop, 1.0)
    assert [event.kind for event in listener.episodes] == ['started', 'timeout']
    assert listener.episodes[1].elapsed_s == pytest.approx(0.5, abs=STEP_S)
    assert {(event.task, event.seed, event.episode) for event in listener.episodes} == {
        ('reach', 7, 1)
    }


def test_success_ends_an_episode_once_and_a_new_one_aborts_a_running_one(arm):
    loop, listener = simulated(arm)
    loop._next = (arm, 7)
    run(loop, 0.1)
    loop._next = (arm, 8)
    run(loop, 0.1)
    arm.success = True
    run(loop, 0.1)
    kinds = [(event.kind, event.seed) for event in listener.episodes]
    assert kinds == [('started', 7), ('aborted', 7), ('started', 8), ('success', 8)]


def test_the_same_seed_gives_the_same_scene(arm):
    loop, _ = simulated(arm)
    loop._next = (arm, 11)
    run(loop, STEP_S)
    first = arm.hidden_state()
    loop._next = (arm, 12)
    run(loop, STEP_S)
    other = arm.hidden_state()
    loop._next = (arm, 11)
    run(loop, STEP_S)
    np.testing.assert_allclose(arm.hidden_state(), first, atol=1e-9)
    assert np.abs(other - first).max() > 1e-3


def test_an_error_in_physics_ends_the_thread_and_is_kept(arm):
    class Broken(Listener):
        def on_capture(self, arm, stamp_s):
            msg = 'no camera'
            raise RuntimeError(msg)

    loop = RobotLoop(arm, Broken(), LoopSettings())
    loop.start()
    deadline_s = time.monotonic() + 5.0
    while loop.error is None and time.monotonic() < deadline_s:
        time.sleep(0.005)
    loop.stop()
    assert str(loop.error) == 'no camera'
