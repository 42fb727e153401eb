"""Plans are integrals of their twists, and blending happens at equal action time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_fakes import chunk

from safe_vla_ros.runtime.action_plan import (
    LiveChunk,
    Plan,
    adaptive_ensemble,
    adaptive_weights,
    crossfade,
    ensemble,
    switch,
)

PERIOD_S = 0.05


def plan(speeds: list[float], origin_s: float = 0.0) -> Plan:
    """Make a plan along x from speeds in m/s, one per action."""
    moves = np.zeros((len(speeds), 3))
    moves[:, 0] = np.array(speeds) * PERIOD_S
    return Plan.from_chunk(chunk(moves), origin_s=origin_s, period_s=PERIOD_S)


def live(of: Plan, opening: float = 0.0) -> LiveChunk:
    """Give a plan a gripper that stays where it is."""
    count = round((of.end_s - of.start_s) / PERIOD_S)
    return LiveChunk(of, np.full(count, opening), PERIOD_S)


def speed(of: Plan, action_time_s: float) -> float:
    return float(of.twist_at(action_time_s)[0])


speed_lists = st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=10)


def test_a_chunks_plan_moves_by_each_action_in_one_period() -> None:
    one = plan([1.0, -2.0, 4.0])
    at = [one.displacement_at(i * PERIOD_S)[0] for i in range(4)]
    assert at == pytest.approx([0.0, 0.05, -0.05, 0.15])
    assert speed(one, 0.07) == pytest.approx(-2.0)


def test_beyond_its_end_the_last_twist_goes_on() -> None:
    one = plan([1.0, 2.0])
    assert speed(one, 5.0) == 2.0
    assert one.displacement_at(0.2)[0] == pytest.approx(0.15 + 0.1 * 2.0)


@settings(max_examples=30, deadline=None)
@given(speed_lists, speed_lists, st.floats(0.0, 0.09), st.integers(0, 4))
def test_a_blended_plans_displacement_is_the_integral_of_its_twist(
    old_speeds: list[float], new_speeds: list[float], start_s: float, steps: int
) -> None:
    old, new = plan(old_speeds), plan(new_speeds, origin_s=min(start_s, 0.03))
    for blended in (
        crossfade(old, new, start_s=start_s, length_s=steps * PERIOD_S),
        ensemble([old, new], start_s=start_s),
        adaptive_ensemble([live(old), live(new)], start_s=start_s),
    ):
        times = np.linspace(blended.start_s, blended.end_s, 401)
        middles = (times[:-1] + times[1:]) / 2
        integral = sum(speed(blended, t) for t in middles) * (times[1] - times[0])
        assert blended.displacement_at(blended.end_s)[0] == pytest.approx(integral, abs=5e-3)


def test_a_crossfade_begins_as_the_old_plan_and_ends_as_the_new_one() -> None:
    old, new = plan([1.0] * 8), plan([3.0] * 8, origin_s=0.1)
    faded = crossfade(old, new, start_s=0.15, length_s=0.1)
    assert speed(faded, 0.15) == pytest.approx(1.0)
    assert speed(faded, 0.20) == pytest.approx(2.0)
    assert speed(faded, 0.25) == pytest.approx(3.0)
    assert faded.end_s == pytest.approx(0.5)


def test_a_crossfade_is_shortened_to_what_the_old_plan_has_left() -> None:
    old, new = plan([1.0] * 4), plan([3.0] * 8, origin_s=0.1)
    faded = crossfade(old, new, start_s=0.15, length_s=0.2)
    assert speed(faded, 0.175) == pytest.approx(2.0)
    assert speed(faded, 0.2) == pytest.approx(3.0)


def test_a_plan_that_has_ended_is_not_faded_from() -> None:
    faded = crossfade(plan([1.0]), plan([3.0] * 8), start_s=0.05, length_s=0.1)
    assert speed(faded, 0.05) == pytest.approx(3.0)


def test_a_switch_follows_the_new_plan_at_once() -> None:
    switched = switch(plan([1.0, 2.0, 3.0]), start_s=0.07)
    assert switched.start_s == 0.07
    assert speed(switched, 0.07) == pytest.approx(2.0)
    assert switched.displacement_at(0.15)[0] == pytest.approx(0.03 * 2.0 + 0.05 * 3.0)


def test_an_ensemble_weighs_the_oldest_most_and_only_the_living() -> None:
    plans = [plan([1.0] * 4), plan([2.0] * 4, origin_s=0.1), plan([4.0] * 4, origin_s=0.15)]
    average = ensemble(plans, start_s=0.15)
    w0, w1, w2 = (math.exp(-0.01 * i) for i in range(3))
    expected = (w0 * 1.0 + w1 * 2.0 + w2 * 4.0) / (w0 + w1 + w2)
    assert speed(average, 0.17) == pytest.approx(expected)
    assert speed(average, 0.25) == pytest.approx((w1 * 2.0 + w2 * 4.0) / (w1 + w2))
    assert speed(average, 0.31) == pytest.approx(4.0)
    assert average.end_s == pytest.approx(0.35)


def test_an_adaptive_ensemble_of_opposites_is_a_tenth_of_the_newest() -> None:
    """Weights e^0.1 and e^-0.1: (e^0.1 - e^-0.1) / (e^0.1 + e^-0.1) = tanh(0.1) = 0.099668."""
    old, new = live(plan([-1.0] * 4)), live(plan([1.0] * 4, origin_s=0.1))
    average = adaptive_ensemble([old, new], start_s=0.1)
    assert speed(average, 0.12) == pytest.approx(0.099668, abs=1e-5)
    assert speed(average, 0.22) == pytest.approx(1.0)
    assert average.end_s == pytest.approx(0.3)


def test_an_adaptive_ensemble_compares_moves_and_gripper_as_one_action() -> None:
    """Actions of 0.05 m each: (0.05, opening 0.05) and (0.05, 0) have a cosine of 1 / sqrt(2)."""
    old, new = live(plan([1.0] * 4)), live(plan([1.0] * 4), opening=0.05)
    weights = adaptive_weights(np.stack([one.action_at(0.0) for one in (old, new)]))
    older, newest = math.exp(0.1 / math.sqrt(2)), math.exp(0.1)
    assert weights == pytest.approx([older / (older + newest), newest / (older + newest)], abs=1e-6)


predictions = st.lists(
    st.lists(st.floats(-1.0, 1.0), min_size=7, max_size=7), min_size=1, max_size=8
)


@settings(max_examples=100, deadline=None)
@given(predictions, st.floats(0.5, 20.0))
def test_adaptive_weights_favour_what_agrees_with_the_newest(
    rows: list[list[float]], scale: float
) -> None:
    actions = np.array(rows)
    weights = adaptive_weights(actions)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.max() <= weights.min() * math.exp(0.2) * (1 + 1e-9)
    if np.linalg.norm(actions[-1]) > 1e-2:
        assert weights.max() <= weights[-1] * (1 + 1e-3)
    average = weights @ actions
    assert (average <= actions.max(axis=0) + 1e-9).all()
    assert (average >= actions.min(axis=0) - 1e-9).all()
    if (np.linalg.norm(actions, axis=1) > 1e-2).all() and np.linalg.norm(actions[-1]) > 1e-2:
        longer = np.vstack([scale * actions[:-1], actions[-1:]])
        assert adaptive_weights(longer) == pytest.approx(weights, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(speed_lists, st.integers(1, 6))
def test_an_adaptive_ensemble_of_one_opinion_is_that_opinion(
    speeds: list[float], count: int
) -> None:
    same = [live(plan(speeds)) for _ in range(count)]
    average = adaptive_ensemble(same, start_s=0.0)
    for middle_s in PERIOD_S * (np.arange(len(speeds)) + 0.5):
        assert speed(average, middle_s) == pytest.approx(speed(same[0].plan, middle_s), abs=1e-12)
