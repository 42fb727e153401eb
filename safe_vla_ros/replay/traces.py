"""Curves of a bag, read from its rows in one pass and never longer than a plot is wide."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_POINTS = 1000
BINS = 400


class Trace:
    """A curve: all its points while they are few, their extremes per bin of time when many."""

    def __init__(self, duration_s: float) -> None:
        self._width_s = max(duration_s, 1e-9) / BINS
        self._points: list[tuple[float, float]] | None = []
        self._bins: dict[int, tuple[float, float, float]] = {}

    def add(self, time_s: float, value: float | None) -> None:
        """Add a point; None is left out."""
        if value is None:
            return
        if self._points is None:
            self._add_to_bin(time_s, value)
            return
        self._points.append((time_s, value))
        if len(self._points) > MOST_POINTS:
            points, self._points = self._points, None
            for point in points:
                self._add_to_bin(*point)

    def points(self) -> list[tuple[float, float]]:
        """Return the curve's points, seconds and values, in order of time."""
        if self._points is not None:
            return self._points
        result = []
        for _, (time_s, low, high) in sorted(self._bins.items()):
            result.append((time_s, low))
            if high > low:
                result.append((time_s, high))
        return result

    def _add_to_bin(self, time_s: float, value: float) -> None:
        index = int(time_s / self._width_s)
        known = self._bins.get(index)
        if known is None:
            self._bins[index] = (time_s, value, value)
        else:
            self._bins[index] = (known[0], min(known[1], value), max(known[2], value))


@dataclass
class MethodTraces:
    """Curves of one method on one bag, by name, and its key steps."""

    duration_s: float
    traces: dict[str, Trace] = field(default_factory=dict)
    key_steps: dict[tuple[int, str], float] = field(default_factory=dict)

    def add_row(self, row: dict[str, Any], executed: int, period_s: float) -> None:
        """Add one row of ``steps.jsonl``.

        Args:
            row: The row.
            executed: Actions of a chunk that are played; their mean velocity is drawn.
            period_s: Duration of an action, seconds.
        """
        time_s = row['time_s']
        self._add('latency_ms', time_s, row['latency_ms'])
        self._add('seam_jump_m_s', time_s, row.get('seam_jump_m_s'))
        if 'pruning_ratio' in row:
            self._add('similarity', time_s, row['similarity'])
            self._add('threshold', time_s, row['threshold'])
            self._add('residual', time_s, row['residual'])
            self._add('max_staleness', time_s, row['max_staleness'])
            self._add('kept_share', time_s, 1 - row['pruning_ratio'])
            if row['key_step']:
                place = (int(BINS * time_s / max(self.duration_s, 1e-9)), str(row['reason']))
                self.key_steps.setdefault(place, time_s)
        if 'difference' in row:
            self._add('difference_mm', time_s, 1000 * row['difference']['position_m'])
        if 'actions' in row:
            actions = np.array(row['actions'])[:executed]
            velocity = actions[:, :3].mean(axis=0) / period_s
            turning = actions[:, 3:6].mean(axis=0) / period_s
            for axis, linear, angular in zip('xyz', velocity, turning, strict=True):
                self._add(f'velocity_{axis}', time_s, float(linear))
                self._add(f'turning_{axis}', time_s, float(angular))
            self._add('gripper', time_s, float(actions[:, 6].mean()))

    def points(self, name: str) -> list[tuple[float, float]]:
        """Return a curve's points; none where nothing was drawn."""
        return self.traces[name].points() if name in self.traces else []

    def _add(self, name: str, time_s: float, value: float | None) -> None:
        if name not in self.traces:
            self.traces[name] = Trace(self.duration_s)
        self.traces[name].add(time_s, value)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a ``steps.jsonl``, one at a time."""
    with path.open(encoding='utf-8') as file:
        for line in file:
            yield json.loads(line)


def read_traces(
    path: Path, duration_s: float, *, executed: int, period_s: float
) -> dict[str, MethodTraces]:
    """Read the curves of every method from a bag's rows."""
    traces: dict[str, MethodTraces] = {}
    for row in read_rows(path):
        traces.setdefault(row['method'], MethodTraces(duration_s)).add_row(row, executed, period_s)
    return traces
