"""Statistics of paired scenes, against published and hand-computed values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_vla_ros.sim.paired_statistics import (
    bootstrap_mean,
    holm,
    mcnemar_exact,
    paired_difference,
    wilson_interval,
)

COUNTS = st.tuples(*[st.integers(0, 150)] * 4).filter(any)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1.0
    assert low < high


def test_a_known_interval():
    low, high = wilson_interval(40, 50)
    assert (low, high) == (pytest.approx(0.670, abs=1e-3), pytest.approx(0.888, abs=1e-3))


def test_no_trial_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ('lost', 'won', 'p'),
    # 2 * (1 + 6) / 64; all five on one side: 2 / 32; and nothing to compare.
    [(1, 5, 14 / 64), (5, 0, 2 / 32), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_the_exact_test_by_hand(lost, won, p):
    assert mcnemar_exact(lost, won) == pytest.approx(p)
    assert mcnemar_exact(won, lost) == mcnemar_exact(lost, won)


def test_thousands_of_differing_scenes_are_no_overflow():
    assert 0.0 < mcnemar_exact(2400, 2600) < 0.01
    assert mcnemar_exact(0, 2000) == 0.0


def test_correction_for_many_tests_by_hand():
    # .01 * 4 = .04; .02 * 3 = .06; .03 * 2 = .06; .04 * 1, but not below the one before it.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0.0, 1.0), max_size=8))
def test_correction_never_makes_a_p_value_smaller_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert all(before <= after <= 1.0 for before, after in zip(p_values, adjusted, strict=True))
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    in_order = [adjusted[index] for index in order]
    assert in_order == sorted(in_order)


@pytest.mark.parametrize(
    ('cells', 'interval'),
    # Newcombe 1998, table II; Fagerland, Lydersen and Laake's example of 21 children.
    [((36, 12, 2, 0), (-0.3404, -0.0569)), ((1, 7, 1, 12), (-0.507, -0.026))],
)
def test_published_intervals_of_a_paired_difference(cells, interval):
    both, lost, won, neither = cells
    difference, low, high = paired_difference(both, lost, won, neither)
    assert difference == pytest.approx((won - lost) / sum(cells))
    assert (low, high) == pytest.approx(interval, abs=5e-4)


@given(COUNTS)
def test_a_paired_interval_holds_its_difference_and_turns_with_the_order(cells):
    both, lost, won, neither = cells
    difference, low, high = paired_difference(both, lost, won, neither)
    assert -1.0 <= low <= difference + 1e-12
    assert difference - 1e-12 <= high <= 1.0
    turned = paired_difference(both, won, lost, neither)
    assert turned == pytest.approx((-difference, -high, -low))


def test_equal_methods_on_many_scenes_are_close():
    _, low, high = paired_difference(290, 0, 0, 10)
    assert -0.03 < low < 0.0 < high < 0.03
    assert paired_difference(0, 0, 0, 0) == (0.0, -1.0, 1.0)


def test_the_mean_over_scenes_has_the_interval_of_its_spread():
    values = [1.0, 2.0, 3.0, 4.0] * 25
    mean, low, high = bootstrap_mean(values)
    # Standard error: sqrt(1.25 / 100) = .112
    assert mean == pytest.approx(2.5)
    assert (low, high) == (pytest.approx(2.28, abs=0.03), pytest.approx(2.72, abs=0.03))
    assert bootstrap_mean(values) == (mean, low, high)
    assert bootstrap_mean([0.5]) == (0.5, 0.5, 0.5)
    assert all(math.isnan(value) for value in bootstrap_mean([]))
