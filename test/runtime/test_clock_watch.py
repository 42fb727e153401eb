"""A clock that cannot be trusted is found out, and a slow or fast one is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_vla_ros.runtime.clock_watch import LONGEST_STANDSTILL_S, ClockReading, ClockWatch

FINE = ClockReading()


def watch_simulated(interval_s, factor, count=20):
    """Return a watch that has seen simulated time move, and where both clocks stand."""
    watch = ClockWatch(simulated=True)
    now_s, steady_s = 100.0, 5.0
    for _ in range(count):
        assert watch.look(now_s, steady_s) == FINE
        now_s, steady_s = now_s + factor * interval_s, steady_s + interval_s
    return watch, now_s - factor * interval_s, steady_s - interval_s


@given(st.lists(st.floats(0.0, 3.0), min_size=1), st.floats(1.0, 2e9))
def test_system_time_that_goes_as_steady_time_is_fine_however_long_the_ticks_are(gaps, start_s):
    watch = ClockWatch()
    steady_s = 7.0
    for gap_s in gaps:
        assert watch.look(start_s + steady_s, steady_s) == FINE
        steady_s += gap_s


@pytest.mark.parametrize('jump_s', [-20.0, -0.15, 0.15, 3600.0])
def test_system_time_that_departs_from_steady_time_has_jumped_once(jump_s):
    watch = ClockWatch()
    watch.look(1000.0, 10.0)
    assert watch.look(1000.02 + jump_s, 10.02).jump_s == pytest.approx(jump_s)
    assert watch.look(1000.04 + jump_s, 10.04) == FINE


@pytest.mark.parametrize('step_s', [-0.09, 0.09])
def test_small_corrections_of_system_time_are_no_jump(step_s):
    watch = ClockWatch()
    watch.look(1000.0, 10.0)
    assert watch.look(1000.02 + step_s, 10.02) == FINE


@pytest.mark.parametrize('factor', [0.1, 1.0, 5.0, 10.0])
@pytest.mark.parametrize(
    ('interval_s', 'patience_s'), [(0.001, 0.2), (0.02, 0.2), (0.1, 0.3), (0.5, 1.0)]
)
def test_simulated_time_stands_still_after_three_usual_intervals(factor, interval_s, patience_s):
    watch, now_s, steady_s = watch_simulated(interval_s, factor)
    assert watch.patience_s == pytest.approx(patience_s)
    assert watch.look(now_s, steady_s + 0.99 * patience_s) == FINE
    standing = watch.look(now_s, steady_s + 1.01 * patience_s)
    assert standing.standstill_s == pytest.approx(1.01 * patience_s)
    assert watch.look(now_s + 0.01, steady_s + 2.0 * patience_s) == FINE


def test_one_standstill_does_not_make_the_next_one_longer():
    watch, now_s, steady_s = watch_simulated(0.02, 1.0)
    watch.look(now_s, steady_s + 0.9)
    assert watch.look(now_s + 0.02, steady_s + 0.92) == FINE
    assert watch.patience_s == pytest.approx(0.2)


def test_simulated_time_that_never_began_stands_still():
    watch = ClockWatch(simulated=True)
    watch.look(0.0, 10.0)
    assert watch.look(0.0, 10.0 + 0.9 * LONGEST_STANDSTILL_S) == FINE
    assert watch.look(0.0, 10.1 + LONGEST_STANDSTILL_S).standstill_s > LONGEST_STANDSTILL_S


def test_simulated_time_may_leap_forwards_but_not_back():
    watch, now_s, steady_s = watch_simulated(0.02, 1.0)
    assert watch.look(now_s + 30.0, steady_s + 0.02) == FINE
    assert watch.look(now_s, steady_s + 0.04).jump_s == pytest.approx(-30.0)
