"""What the arm is told when time breaks, the node stalls, or somebody else commands it."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_fakes import Bench, FakePolicy, control, speed, steady_chunk

from safe_vla_ros.runtime import ManualClock, MotionLimits, StateName
from safe_vla_ros.runtime.halt_reasons import HaltKind

LIMITS = MotionLimits(0.25, 0.8, 1.0, 3.0)
SPEED_M_S = 0.2
LARGEST_CHANGE = 1.0 * 0.02 + 1e-9


def moving_bench(*, simulated: bool = False, **changes: object) -> Bench:
    bench = Bench(
        FakePolicy(lambda _: steady_chunk(SPEED_M_S, steps=40)),
        settings=control(limits=LIMITS, **changes),
        steady_clock=ManualClock(500.0),
        active=False,
    )
    bench.runtime.activate(simulated_time=simulated)
    assert speed(bench.run(1.0)[-1]) == pytest.approx(SPEED_M_S)
    return bench


def speeds_of(bench: Bench, duration_s: float) -> list[float]:
    return [speed(command) for command in bench.run(duration_s)]


def test_after_a_stall_zeros_come_first_and_motion_begins_anew_from_a_fresh_observation() -> None:
    bench = moving_bench()
    bench.pass_time(0.3)
    speeds = speeds_of(bench, 1.0)
    assert speeds[0] == 0.0
    assert np.diff(speeds).max() <= LARGEST_CHANGE
    assert speeds[-1] == pytest.approx(SPEED_M_S)
    assert bench.runtime.statistics().halts == {HaltKind.STALLED: 1}


def test_a_stall_says_how_long_it_was() -> None:
    bench = moving_bench()
    bench.pass_time(0.3)
    bench.runtime.tick()
    assert bench.state is StateName.HALTING
    assert bench.reason == (
        'the node stalled: no command for 0.32 s, the robot holds one for 0.1 s'
    )


def test_a_robot_that_never_stops_by_itself_is_braked_from_its_last_speed() -> None:
    bench = moving_bench(robot_command_timeout_s=0.0)
    bench.pass_time(0.3)
    bench.latency_s = 100.0
    speeds = [SPEED_M_S, *speeds_of(bench, 1.0)]
    assert np.diff(speeds).min() >= -LARGEST_CHANGE
    assert speeds[1] > 0.1
    assert speeds[-1] == 0.0
    assert bench.runtime.statistics().halts == {HaltKind.STALLED: 1}


def test_a_robot_with_more_patience_is_not_stopped() -> None:
    bench = moving_bench(robot_command_timeout_s=0.5)
    bench.pass_time(0.3)
    assert speed(bench.step()) == pytest.approx(SPEED_M_S)
    assert bench.runtime.statistics().halts == {}


def test_time_in_silence_gives_no_room_to_speed_up() -> None:
    bench = moving_bench()
    bench.runtime.pause(True)
    bench.run(2.0)
    bench.runtime.pause(False)
    bench.pass_time(0.08)
    speeds = speeds_of(bench, 0.5)
    assert max(speeds) > 0.1
    first = next(now for now in speeds if now > 0.0)
    assert first <= LARGEST_CHANGE


def test_a_command_carries_the_time_of_its_tick() -> None:
    bench = moving_bench()
    command = bench.runtime.tick()
    assert command is not None
    assert command.stamp_s == bench.now_s


def test_a_stall_in_silence_is_nothing() -> None:
    bench = moving_bench()
    bench.runtime.set_instruction('')
    bench.run(2.0)
    bench.pass_time(5.0)
    assert bench.runtime.tick() is None
    assert HaltKind.STALLED not in bench.runtime.statistics().halts


@pytest.mark.parametrize('jump_s', [-5.0, 20.0])
def test_system_time_that_jumps_halts_and_the_arm_goes_on_afterwards(jump_s: float) -> None:
    bench = moving_bench()
    bench.clock.advance(jump_s)
    speeds = [SPEED_M_S, *speeds_of(bench, 1.0)]
    assert speeds[1] < SPEED_M_S
    assert speeds[-1] == pytest.approx(SPEED_M_S)
    halts = bench.runtime.statistics().halts
    assert halts[HaltKind.CLOCK_JUMP] == 1
    if jump_s < 0:
        assert np.abs(np.diff(speeds)).max() <= LARGEST_CHANGE
        assert HaltKind.STALLED not in halts
    else:
        # The machine was suspended, so the robot has stopped by itself.
        assert speeds[1] == 0.0
        assert halts[HaltKind.STALLED] == 1


def test_a_clock_that_jumped_is_said_while_the_arm_brakes_although_inputs_are_missing() -> None:
    bench = moving_bench()
    bench.clock.advance(-5.0)
    for _ in range(3):
        bench.runtime.tick()
        bench.pass_time()
        assert (bench.state, bench.reason) == (
            StateName.HALTING,
            'the clock jumped back by 5 s',
        )


def test_simulated_time_that_stands_still_brakes_in_steady_time_and_ends_in_silence() -> None:
    bench = moving_bench(simulated=True)
    bench.clock_runs = False
    while not bench.runtime.clock_stands_still():
        bench.pass_time()
    commands = bench.run(1.2)
    speeds = [SPEED_M_S, *(speed(command) for command in commands)]
    assert np.abs(np.diff(speeds)).max() <= LARGEST_CHANGE
    assert commands[-1] is None
    assert (bench.state, bench.reason) == (
        StateName.STALE,
        'simulated time stands still: no new /clock comes',
    )
    bench.clock_runs = True
    assert speeds_of(bench, 1.0)[-1] == pytest.approx(SPEED_M_S)


def test_no_inference_begins_while_simulated_time_stands_still() -> None:
    bench = moving_bench(simulated=True)
    bench.clock_runs = False
    for _ in range(30):
        bench.pass_time()
        bench.runtime.tick()
    bench.feed()
    assert bench.runtime.begin_inference() is None


def test_simulated_time_that_never_began_is_said() -> None:
    steady = ManualClock(500.0)
    bench = Bench(steady_clock=steady, active=False)
    bench.clock.set(0.0)
    bench.runtime.activate(simulated_time=True)
    for text in (bench.runtime.statistics().instruction, ''):
        bench.runtime.set_instruction(text)
        for _ in range(100):
            bench.runtime.tick()
            steady.advance(0.02)
        assert bench.reason == 'simulated time stands still: there is no /clock'


def test_simulated_time_may_stand_still_where_nothing_is_asked_for() -> None:
    bench = moving_bench(simulated=True)
    bench.runtime.set_instruction('')
    bench.run(2.0)
    bench.clock_runs = False
    for _ in range(100):
        bench.pass_time()
        assert bench.runtime.tick() is None
        assert (bench.state, bench.reason) == (StateName.WAITING, 'no instruction')
    bench.runtime.set_instruction('another task')
    bench.run(0.1)
    assert bench.state is StateName.STALE
    bench.clock_runs = True
    assert speeds_of(bench, 1.0)[-1] == pytest.approx(SPEED_M_S)


def test_another_commander_in_motion_is_latched_until_the_episode_is_reset() -> None:
    bench = moving_bench()
    bench.runtime.hear_other_commander('/ee_twist')
    assert speeds_of(bench, 5.0)[-1] == 0.0
    assert bench.state is StateName.FAILED
    assert bench.reason.startswith('another publisher commands the robot on /ee_twist')
    bench.runtime.reset_episode()
    assert speeds_of(bench, 1.0)[-1] == pytest.approx(SPEED_M_S)


def test_another_commander_beside_a_silent_node_is_waited_for() -> None:
    bench = moving_bench()
    bench.runtime.set_instruction('')
    bench.run(2.0)
    bench.runtime.hear_other_commander('/ee_twist')
    assert bench.runtime.other_commander
    bench.runtime.set_instruction('reach')
    assert speeds_of(bench, 0.9)[-1] == 0.0
    assert bench.state is StateName.FAILED
    assert speeds_of(bench, 1.5)[-1] == pytest.approx(SPEED_M_S)
    assert bench.runtime.other_commander == ''


def test_another_commander_may_take_over_from_a_paused_node() -> None:
    bench = moving_bench()
    bench.runtime.pause(True)
    bench.run(2.0)
    bench.runtime.hear_other_commander('/ee_twist')
    bench.run(2.0)
    assert bench.state is StateName.PAUSED
    bench.runtime.pause(False)
    assert speeds_of(bench, 1.0)[-1] == pytest.approx(SPEED_M_S)
