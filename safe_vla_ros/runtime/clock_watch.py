"""Whether the clock of stamps can be trusted, judged by a clock that never stops."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LARGEST_DISAGREEMENT_S = 0.1
"""A clock that departs further than this from steady time between two looks has jumped."""

SHORTEST_STANDSTILL_S = 0.2
LONGEST_STANDSTILL_S = 1.0
INTERVALS_PER_STANDSTILL = 3.0
"""Simulated time stands still after this many of its usual intervals, within the two bounds."""

INTERVALS_KEPT = 31
INTERVALS_NEEDED = 3


@dataclass(frozen=True)
class ClockReading:
    """What one look at the clock found.

    Attributes:
        jump_s: How far the clock jumped since the last look, seconds; 0 when it did not.
        standstill_s: How long it has stood still, seconds; 0 while that is not too long.
    """

    jump_s: float = 0.0
    standstill_s: float = 0.0


class ClockWatch:
    """Looks at a clock again and again, and says when it jumps or stands still. Not thread-safe.

    System time must go as fast as steady time. Simulated time may go at any rate, but only
    forwards, and it must go on: its usual interval is the median of the wall-clock time between
    two changes.
    """

    def __init__(self, *, simulated: bool = False) -> None:
        self.simulated = simulated
        self._now_s: float | None = None
        self._steady_s = 0.0
        self._moved_s = 0.0
        self._intervals_s: deque[float] = deque(maxlen=INTERVALS_KEPT)

    @property
    def patience_s(self) -> float:
        """How long simulated time may stand still, seconds of steady time."""
        if len(self._intervals_s) < INTERVALS_NEEDED:
            return LONGEST_STANDSTILL_S
        median_s = sorted(self._intervals_s)[len(self._intervals_s) // 2]
        patience_s = max(SHORTEST_STANDSTILL_S, INTERVALS_PER_STANDSTILL * median_s)
        return min(patience_s, LONGEST_STANDSTILL_S)

    def look(self, now_s: float, steady_s: float) -> ClockReading:
        """Take both times.

        Args:
            now_s: The watched clock's time, seconds.
            steady_s: Steady time, seconds.
        """
        last_s, self._now_s = self._now_s, now_s
        elapsed_s, self._steady_s = steady_s - self._steady_s, steady_s
        if last_s is None:
            self._moved_s = steady_s
            return ClockReading()
        if not self.simulated:
            jump_s = now_s - last_s - elapsed_s
            return ClockReading(jump_s if abs(jump_s) > LARGEST_DISAGREEMENT_S else 0.0)
        if now_s == last_s:
            standing_s = steady_s - self._moved_s
            return ClockReading(standstill_s=standing_s if standing_s > self.patience_s else 0.0)
        self._intervals_s.append(steady_s - self._moved_s)
        self._moved_s = steady_s
        jump_s = min(0.0, now_s - last_s)
        return ClockReading(jump_s if jump_s < -LARGEST_DISAGREEMENT_S else 0.0)
