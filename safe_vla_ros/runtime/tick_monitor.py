"""How punctual the control ticks are, measured where they run."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW = 3000


@dataclass(frozen=True)
class TickTiming:
    """A snapshot of the ticks' punctuality; deviation is that of the interval from the period.

    Attributes:
        period_s: What the interval between two ticks should be.
        ticks: Ticks since activation.
        missed: Periods since activation in which a tick was later than half a period.
        rate_hz: Mean rate over the window; None before the second tick.
        deviation_p50_s, deviation_p99_s: Over the last 3000 ticks; None before the second tick.
        deviation_max_s: Since activation; None before the second tick.
        duration_max_s: Longest time that a tick took since activation; None before the first.
    """

    period_s: float
    ticks: int
    missed: int
    rate_hz: float | None
    deviation_p50_s: float | None
    deviation_p99_s: float | None
    deviation_max_s: float | None
    duration_max_s: float | None


class TickMonitor:
    """Takes the time of every tick; may be read from another thread."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._lock = threading.Lock()
        self._last_s: float | None = None
        self._intervals_s: deque[float] = deque(maxlen=WINDOW)
        self._ticks = 0
        self._missed = 0
        self._deviation_max_s: float | None = None
        self._duration_max_s: float | None = None

    def ticked(self, now_s: float, duration_s: float) -> None:
        """Note a tick.

        Args:
            now_s: When it began, on the clock of the timer.
            duration_s: How long it took.
        """
        with self._lock:
            self._ticks += 1
            self._duration_max_s = max(self._duration_max_s or 0.0, duration_s)
            last_s, self._last_s = self._last_s, now_s
            if last_s is None or now_s < last_s:
                return
            interval_s = now_s - last_s
            self._intervals_s.append(interval_s)
            deviation_s = abs(interval_s - self._period_s)
            self._deviation_max_s = max(self._deviation_max_s or 0.0, deviation_s)
            if interval_s > 1.5 * self._period_s:
                self._missed += max(1, round(interval_s / self._period_s) - 1)

    def timing(self) -> TickTiming:
        """Return what has been measured."""
        with self._lock:
            intervals_s = np.array(self._intervals_s)
            ticks, missed = self._ticks, self._missed
            deviation_max_s, duration_max_s = self._deviation_max_s, self._duration_max_s
        rate_hz = p50_s = p99_s = None
        if intervals_s.size:
            deviations_s = np.abs(intervals_s - self._period_s)
            p50_s, p99_s = np.percentile(deviations_s, [50, 99]).tolist()
            mean_s = float(intervals_s.mean())
            rate_hz = 1.0 / mean_s if mean_s > 0.0 else None
        return TickTiming(
            self._period_s, ticks, missed, rate_hz, p50_s, p99_s, deviation_max_s, duration_max_s
        )
