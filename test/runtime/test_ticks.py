"""The length of ticks comes from the clock."""

from __future__ import annotations

import pytest

from safe_vla_ros.runtime.ticks import TickTimer


def lengths(timer: TickTimer, times: list[float]) -> list[tuple[float, float]]:
    return [(tick.elapsed_s, tick.expected_s) for tick in map(timer.tick, times)]


def test_the_first_tick_has_the_nominal_length() -> None:
    assert lengths(TickTimer(50.0), [1000.0]) == [(0.02, 0.02)]


def test_later_ticks_have_the_length_that_the_clock_says() -> None:
    timer = TickTimer(50.0)
    seen = lengths(timer, [1.0, 1.01, 1.02, 1.03])
    assert [elapsed for elapsed, _ in seen] == pytest.approx([0.02, 0.01, 0.01, 0.01])
    assert seen[-1][1] == pytest.approx(0.01)


def test_one_late_tick_does_not_change_what_is_expected() -> None:
    timer = TickTimer(50.0)
    times = [1.0, 1.02, 1.04, 1.06, 1.12, 1.14]
    assert lengths(timer, times)[-1][1] == pytest.approx(0.02)


def test_a_command_counts_for_no_longer_than_a_robot_executes_it() -> None:
    timer = TickTimer(50.0)
    timer.tick(1.0)
    assert timer.tick(9.0).elapsed_s == pytest.approx(0.1)


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


def test_a_jump_back_is_noticed_and_a_small_step_back_is_not() -> None:
    timer = TickTimer(50.0)
    timer.tick(10.0)
    assert not timer.tick(9.95).jumped_back
    tick = timer.tick(5.0)
    assert tick.jumped_back
    assert tick.now_s == 5.0
    assert not timer.tick(5.02).jumped_back
