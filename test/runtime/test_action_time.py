"""Action time runs while something is played and is known for every moment."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.runtime.action_time import ActionTime

intervals = st.lists(
    st.tuples(st.floats(1e-4, 0.2), st.floats(0.0, 1.0), st.sampled_from(['all', 'none', 'some'])),
    min_size=1,
    max_size=60,
)


@settings(max_examples=50, deadline=None)
@given(intervals, st.floats(0.0, 1.0))
def test_what_was_played_by_any_moment_is_the_sum_of_what_was_played_before_it(
    steps: list[tuple[float, float, str]], when: float
) -> None:
    action_time, now_s = ActionTime(), 100.0
    recorded = []
    for length_s, share, kind in steps:
        played_s = {'all': length_s, 'none': 0.0, 'some': share * length_s}[kind]
        action_time.record(now_s, now_s + length_s, played_s)
        recorded.append((now_s, now_s + length_s, played_s))
        now_s += length_s
    moment_s = 100.0 + when * (now_s - 100.0)
    expected = sum(min(max(moment_s - start_s, 0.0), played_s) for start_s, _, played_s in recorded)
    assert action_time.at(moment_s) == pytest.approx(expected, abs=1e-7)
    assert action_time.at(50.0) == pytest.approx(0.0)
    assert action_time.at(now_s + 1.0) == action_time.total_s


def test_steady_playing_needs_no_memory() -> None:
    action_time = ActionTime()
    for i in range(10_000):
        action_time.record(i * 0.02, (i + 1) * 0.02, 0.02)
    assert len(action_time._clock_s) == 2
    assert action_time.at(100.0) == pytest.approx(100.0)


def test_memory_is_bounded_when_playing_comes_and_goes() -> None:
    action_time = ActionTime()
    for i in range(10_000):
        action_time.record(i * 0.02, (i + 1) * 0.02, 0.01)
    assert len(action_time._clock_s) <= 2048
    assert action_time.at(199.0) == pytest.approx(99.5, abs=0.011)
