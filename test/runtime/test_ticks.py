"""The length of ticks comes from the clock."""

from __future__ import annotations

import math

import pytest

from safe_vla_ros.runtime.clocks import ManualClock
from safe_vla_ros.runtime.ticks import TickClock, TickTimer


def lengths(timer: TickTimer, times: list[float]) -> list[tuple[float, float]]:
    return [(tick.elapsed_s, tick.expected_s) for tick in map(timer.tick, times)]


def test_the_first_tick_has_the_nominal_length() -> None:
    assert lengths(TickTimer(50.0), [1000.0]) == [(0.02, 0.02)]


def test_later_ticks_have_the_length_that_the_clock_says() -> None:
    timer = TickTimer(50.0)
    seen = lengths(timer, [1.0, 1.01, 1.02, 1.03])
    assert [elapsed for elapsed, _ in seen] == pytest.approx([0.02, 0.01, 0.01, 0.01])
    assert seen[-1][1] == pytest.approx(0.01)


def test_a_gap_longer_than_the_robot_holds_a_command_is_a_stall() -> None:
    timer = TickTimer(50.0, hold_s=0.3)
    assert [timer.tick(now_s).stalled for now_s in (1.0, 1.02, 1.31, 1.62, 1.64)] == [
        False, False, False, True, False,
    ]  # fmt: skip


def test_a_robot_holds_a_command_for_at_least_two_periods() -> None:
    timer = TickTimer(5.0, hold_s=0.1)
    assert [timer.tick(now_s).stalled for now_s in (1.0, 1.39, 1.8)] == [False, False, True]


def test_a_robot_that_never_stops_by_itself_executes_a_command_for_ever() -> None:
    timer = TickTimer(50.0, hold_s=0.0)
    timer.tick(1.0)
    assert timer.tick(1.02).longest_s == math.inf
    assert timer.tick(1.3).stalled


def test_slow_steps_of_a_simulated_clock_are_no_stall() -> None:
    timer = TickTimer(50.0, as_the_clock_moves=True)
    times = [1.0 + 0.09 * step for step in range(8)]
    assert not any(timer.tick(now_s).stalled for now_s in [*times, times[-1] + 0.17])
    assert timer.tick(times[-1] + 0.4).stalled


def test_one_late_tick_does_not_change_what_is_expected() -> None:
    timer = TickTimer(50.0)
    times = [1.0, 1.02, 1.04, 1.06, 1.12, 1.14]
    assert lengths(timer, times)[-1][1] == pytest.approx(0.02)


def test_the_time_of_a_stall_gives_no_room_to_change_the_speed() -> None:
    timer = TickTimer(50.0)
    timer.tick(1.0)
    tick = timer.tick(9.0)
    assert (tick.elapsed_s, tick.gap_s) == (0.02, 8.0)


def test_a_clock_that_starts_late_does_not_make_long_ticks() -> None:
    timer = TickTimer(50.0)
    timer.tick(0.0)
    tick = timer.tick(1.7e9)
    assert tick.elapsed_s <= 0.2
    assert tick.expected_s <= 0.2


def test_a_slow_control_rate_is_not_cut_short() -> None:
    timer = TickTimer(1.0)
    timer.tick(1.0)
    tick = timer.tick(2.0)
    assert tick.elapsed_s == pytest.approx(1.0)
    assert tick.expected_s == pytest.approx(1.0)


def clocks(*, simulated: bool, rate_hz: float = 50.0) -> tuple[ManualClock, ManualClock, TickClock]:
    clock, steady = ManualClock(1000.0), ManualClock(5.0)
    ticks = TickClock(clock, steady, rate_hz=rate_hz, hold_s=0.1, simulated=simulated)
    for _ in range(20):
        ticks.tick(closing=False)
        clock.advance(0.02)
        steady.advance(0.02)
    return clock, steady, ticks


@pytest.mark.parametrize('jump_s', [-20.0, 3600.0])
def test_durations_do_not_follow_system_time_that_jumps(jump_s: float) -> None:
    clock, steady, ticks = clocks(simulated=False)
    clock.advance(jump_s)
    tick = ticks.tick(closing=False)
    assert tick.now_s == clock.now_s()
    assert tick.elapsed_s == pytest.approx(0.02)
    assert tick.clock.jump_s == pytest.approx(jump_s)
    assert tick.stalled == (jump_s > 0.0)
    clock.advance(0.02)
    steady.advance(0.02)
    after = ticks.tick(closing=False)
    assert (after.clock.jump_s, after.stalled) == (0.0, False)


def test_a_stalled_process_is_noticed_in_steady_time() -> None:
    clock, steady, ticks = clocks(simulated=False)
    clock.advance(0.3)
    steady.advance(0.3)
    tick = ticks.tick(closing=False)
    assert (tick.stalled, tick.clock.jump_s) == (True, 0.0)
    assert tick.gap_s == pytest.approx(0.32)


@pytest.mark.parametrize('factor', [0.1, 1.0, 5.0])
def test_durations_follow_simulated_time_at_any_rate(factor: float) -> None:
    clock, steady, ticks = clocks(simulated=True)
    for _ in range(10):
        clock.advance(0.02)
        steady.advance(0.02 / factor)
        tick = ticks.tick(closing=False)
        assert tick.elapsed_s == pytest.approx(0.02, abs=0.021)
        assert not tick.stalled
        assert tick.clock.standstill_s == 0.0


def test_simulated_time_that_stands_still_is_left_for_steady_time_until_it_moves() -> None:
    clock, steady, ticks = clocks(simulated=True)
    ticks.tick(closing=False)
    steady.advance(0.5)
    assert ticks.stands_still()
    first = ticks.tick(closing=False)
    assert first.clock.standstill_s > 0.2
    assert first.elapsed_s == pytest.approx(0.02)
    steady.advance(0.03)
    assert ticks.tick(closing=False).elapsed_s == pytest.approx(0.03)
    steady.advance(0.02)
    clock.advance(0.01)
    moved = ticks.tick(closing=False)
    assert (moved.clock.standstill_s, moved.stalled) == (0.0, False)
    assert moved.elapsed_s == pytest.approx(0.01)


def test_simulated_time_that_jumps_back_between_ticks_is_told_at_the_next_one() -> None:
    clock, _, ticks = clocks(simulated=True)
    clock.advance(-7.0)
    assert not ticks.stands_still()
    tick = ticks.tick(closing=False)
    assert tick.clock.jump_s == pytest.approx(-7.0, abs=0.021)
    assert tick.now_s == clock.now_s()
