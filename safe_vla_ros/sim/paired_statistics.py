"""Statistics of a study in which every method runs the same scenes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

Z_95 = 1.959963984540054
"""Quantile of the normal distribution that bounds 95 % of it on both sides."""


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Return Wilson's score interval of a share (95 % by default).

    Args:
        successes: Of the trials.
        trials: 0 or more; without any, nothing is known.
        z: Quantile of the normal distribution.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1.0 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar_exact(lost: int, won: int) -> float:
    """Return the two-sided p value of McNemar's exact test, that losses are as likely as gains.

    Only scenes on which the two methods differ count. Twice the smaller tail of the binomial
    distribution with one half, at most 1.

    Args:
        lost: Scenes that the first method solves and the second does not.
        won: The other way round.
    """
    differing = lost + won
    tail, ways = 0, 1
    for count in range(min(lost, won) + 1):
        tail += ways
        ways = ways * (differing - count) // (count + 1)
    # Integers first: 2 ** -n is too small for a float where its product with the sum is not.
    return float(min(1.0, 2 * tail / 2**differing))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's step-down method, in the same order."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def paired_difference(
    both: int, lost: int, won: int, neither: int, z: float = Z_95
) -> tuple[float, float, float]:
    """Return the difference of two shares on the same scenes, with Newcombe's interval.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", method 10: Wilson's intervals of the two shares, put together with the
    correlation of the pairs (corrected for continuity where it is positive).

    Args:
        both: Scenes that both methods solve.
        lost: Scenes that only the first solves.
        won: Scenes that only the second solves.
        neither: Scenes that neither solves.
        z: Quantile of the normal distribution; 95 % between the bounds by default.

    Returns:
        Second minus first, and its lower and upper bound, -1..1.
    """
    total = both + lost + won + neither
    if total == 0:
        return 0.0, -1.0, 1.0
    first, second = (both + lost) / total, (both + won) / total
    low_1, high_1 = wilson_interval(both + lost, total, z)
    low_2, high_2 = wilson_interval(both + won, total, z)
    phi = _correlation(both, lost, won, neither)
    below = _distance(second - low_2, high_1 - first, phi)
    above = _distance(high_2 - second, first - low_1, phi)
    difference = second - first
    return difference, max(-1.0, difference - below), min(1.0, difference + above)


def bootstrap_mean(
    values: Sequence[float], *, seed: int = 0, draws: int = 10_000
) -> tuple[float, float, float]:
    """Return the mean of one number per scene with a 95 % percentile interval over scenes.

    Args:
        values: One per scene, for example a difference between two methods.
        seed: Seed of the resampling.
        draws: Samples drawn with replacement.

    Returns:
        Mean, lower and upper bound; NaN without values.
    """
    if not values:
        return math.nan, math.nan, math.nan
    numbers = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(seed)
    means = [
        float(numbers[random.integers(0, len(numbers), len(numbers))].mean()) for _ in range(draws)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(numbers.mean()), float(low), float(high)


def _correlation(both: int, lost: int, won: int, neither: int) -> float:
    sums = (both + lost) * (won + neither) * (both + won) * (lost + neither)
    if sums == 0:
        return 0.0
    covariance = float(both * neither - lost * won)
    if covariance > 0.0:
        covariance = max(0.0, covariance - (both + lost + won + neither) / 2)
    return covariance / math.sqrt(sums)


def _distance(first: float, second: float, phi: float) -> float:
    # Rounding can make the square of nothing negative.
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))
