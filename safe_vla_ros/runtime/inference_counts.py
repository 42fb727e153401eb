"""What is counted and measured about inferences."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

WINDOW = 100


@dataclass(frozen=True)
class Latencies:
    """Latency of the last inferences, seconds; None before the second one.

    Attributes:
        p50_s, p95_s, max_s: Over the last hundred, the warm-up excluded.
    """

    p50_s: float | None
    p95_s: float | None
    max_s: float | None


class InferenceCounts:
    """Counts inferences and keeps windows of what was measured about them."""

    def __init__(self) -> None:
        self.inferences = 0
        self.accepted = 0
        self.discarded = 0
        self.failures = 0
        self.refused = 0
        self.last_latency_s: float | None = None
        self.warm_up_latency_s: float | None = None
        self.last_observation_age_s: float | None = None
        self.chunk_duration_s: float | None = None
        self._latencies_s: deque[float] = deque(maxlen=WINDOW)
        self._skipped: deque[float] = deque(maxlen=WINDOW)
        self._jumps_m_s: deque[float] = deque(maxlen=WINDOW)
        self._jumps_rad_s: deque[float] = deque(maxlen=WINDOW)

    def ended(self, latency_s: float, *, warm_up: bool) -> None:
        """Count an inference that ended, well or not."""
        self.inferences += 1
        if warm_up:
            self.warm_up_latency_s = latency_s
        else:
            self.last_latency_s = latency_s
            self._latencies_s.append(latency_s)

    def spliced(
        self, skipped: float, jump_m_s: float | None, jump_rad_s: float | None, age_s: float
    ) -> None:
        """Count a chunk that is played from now on."""
        self.accepted += 1
        self.last_observation_age_s = age_s
        self._skipped.append(skipped)
        if jump_m_s is not None and jump_rad_s is not None:
            self._jumps_m_s.append(jump_m_s)
            self._jumps_rad_s.append(jump_rad_s)

    def latencies(self) -> Latencies:
        """Return the percentiles of the window."""
        if not self._latencies_s:
            return Latencies(None, None, None)
        p50_s, p95_s, max_s = np.percentile(self._latencies_s, [50, 95, 100]).tolist()
        return Latencies(p50_s, p95_s, max_s)

    def skipped_actions(self) -> float | None:
        """Return the mean number of skipped actions of the window."""
        return sum(self._skipped) / len(self._skipped) if self._skipped else None

    def seam_jumps(self) -> tuple[float | None, float | None]:
        """Return the largest jumps of the window, m/s and rad/s."""
        return max(self._jumps_m_s, default=None), max(self._jumps_rad_s, default=None)
