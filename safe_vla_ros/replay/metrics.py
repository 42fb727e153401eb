"""Sums that need no more room for a longer bag, and that add up over bags in any grouping."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

BINS_PER_FACTOR_E = 50
"""Quantiles are exact to 1 %: neighbouring bins differ by exp(1 / 50)."""

SMALLEST = 1e-9


@dataclass
class Distribution:
    """How a quantity is distributed: count, sums, extremes and a logarithmic histogram.

    Attributes:
        count: Number of values.
        total, total_of_squares: Sum of the values and of their squares.
        low, high: Extremes; infinite without a value.
        bins: Number of values by bin; 0 holds magnitudes below ``SMALLEST``, the sign of a bin is
            that of its values.
    """

    count: int = 0
    total: float = 0.0
    total_of_squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    bins: Counter[int] = field(default_factory=Counter)

    def add(self, value: float) -> None:
        """Add one finite value."""
        self.count += 1
        self.total += value
        self.total_of_squares += value * value
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        self.bins[_bin(value)] += 1

    def merge(self, other: Distribution) -> None:
        """Add all values of another distribution."""
        self.count += other.count
        self.total += other.total
        self.total_of_squares += other.total_of_squares
        self.low = min(self.low, other.low)
        self.high = max(self.high, other.high)
        self.bins.update(other.bins)

    @property
    def mean(self) -> float | None:
        """Mean, or None without a value."""
        return self.total / self.count if self.count else None

    @property
    def rms(self) -> float | None:
        """Root of the mean square, or None without a value."""
        return math.sqrt(self.total_of_squares / self.count) if self.count else None

    def quantile(self, share: float) -> float | None:
        """Return the value below which this share of the values lies, to 1 %; None without any.

        Args:
            share: 0..1.
        """
        if not self.count:
            return None
        rank = share * (self.count - 1)
        seen = 0
        for index in sorted(self.bins):
            seen += self.bins[index]
            if seen > rank:
                return min(max(_centre(index), self.low), self.high)
        return self.high

    def summary(self) -> dict[str, float | int | None]:
        """Return what people read: count, mean, median, 95th percentile and extremes."""
        return {
            'count': self.count,
            'mean': self.mean,
            'p50': self.quantile(0.5),
            'p95': self.quantile(0.95),
            'min': self.low if self.count else None,
            'max': self.high if self.count else None,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything that ``from_json`` needs."""
        return {
            **self.summary(),
            'total': self.total,
            'total_of_squares': self.total_of_squares,
            'bins': {str(index): number for index, number in sorted(self.bins.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Distribution:
        """Read what ``to_json`` wrote."""
        return cls(
            data['count'],
            data['total'],
            data['total_of_squares'],
            math.inf if data['min'] is None else data['min'],
            -math.inf if data['max'] is None else data['max'],
            Counter({int(index): number for index, number in data['bins'].items()}),
        )


class MetricSums:
    """Counters and distributions by name.

    Attributes:
        counts: Counters.
        distributions: Distributions.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.distributions: dict[str, Distribution] = {}

    def count(self, name: str, by: float = 1) -> None:
        """Add to a counter."""
        self.counts[name] += by  # type: ignore[assignment]

    def add(self, name: str, value: float | None) -> None:
        """Add a value to a distribution; None and what is not finite are counted instead."""
        if value is None:
            return
        if not math.isfinite(value):
            self.count(f'{name}/not_finite')
            return
        self.distributions.setdefault(name, Distribution()).add(value)

    def get(self, name: str) -> Distribution:
        """Return a distribution, an empty one where nothing was added."""
        return self.distributions.get(name, Distribution())

    def merge(self, other: MetricSums) -> None:
        """Add the sums of another part."""
        self.counts.update(other.counts)
        for name, distribution in other.distributions.items():
            self.distributions.setdefault(name, Distribution()).merge(distribution)

    def to_json(self) -> dict[str, Any]:
        """Return everything that ``from_json`` needs."""
        return {
            'counts': dict(sorted(self.counts.items())),
            'distributions': {
                name: distribution.to_json()
                for name, distribution in sorted(self.distributions.items())
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MetricSums:
        """Read what ``to_json`` wrote."""
        metrics = cls()
        metrics.counts.update(data['counts'])
        for name, distribution in data['distributions'].items():
            metrics.distributions[name] = Distribution.from_json(distribution)
        return metrics


def _bin(value: float) -> int:
    magnitude = abs(value)
    if magnitude < SMALLEST:
        return 0
    index = 1 + int(math.log(magnitude / SMALLEST) * BINS_PER_FACTOR_E)
    return index if value > 0 else -index


def _centre(index: int) -> float:
    if index == 0:
        return 0.0
    magnitude = SMALLEST * math.exp((abs(index) - 0.5) / BINS_PER_FACTOR_E)
    return magnitude if index > 0 else -magnitude
