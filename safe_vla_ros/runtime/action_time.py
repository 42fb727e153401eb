"""How much action time had been played at any moment of the clock."""

from __future__ import annotations

from bisect import bisect_right

_MAX_CORNERS = 2048
_TOLERANCE_S = 1e-9


class ActionTime:
    """Played action time against the clock: corners of a line that rises by 1 or is flat.

    Times before the first corner count as standing still, times after the last one too.
    """

    def __init__(self) -> None:
        self._clock_s: list[float] = []
        self._played_s: list[float] = []
        self._total_s = 0.0

    @property
    def total_s(self) -> float:
        """Action time played so far, seconds; only differences mean something."""
        return self._total_s

    def record(self, start_s: float, end_s: float, played_s: float) -> None:
        """Record that the first ``played_s`` of an interval of the clock were played.

        Args:
            start_s: Beginning of the interval; where the last one ended.
            end_s: End of the interval, not before its beginning.
            played_s: 0 .. end - start, seconds.
        """
        if not self._clock_s:
            self._add(start_s)
        if played_s > 0.0:
            stop_s = min(end_s, start_s + played_s)
            self._total_s += played_s
            self._add(stop_s)
            if end_s > stop_s:
                self._add(end_s)
        else:
            self._add(end_s)

    def at(self, clock_s: float) -> float:
        """Return the action time that had been played at a time of the clock, seconds."""
        if not self._clock_s:
            return self._total_s
        if clock_s >= self._clock_s[-1]:
            return self._total_s
        after = bisect_right(self._clock_s, clock_s)
        if after == 0:
            return self._played_s[0]
        start_s, end_s = self._clock_s[after - 1], self._clock_s[after]
        start, end = self._played_s[after - 1], self._played_s[after]
        return start + (end - start) * (clock_s - start_s) / (end_s - start_s)

    def forget(self) -> None:
        """Forget the past (the clock jumped); the total goes on from where it is."""
        self._clock_s.clear()
        self._played_s.clear()

    def _add(self, clock_s: float) -> None:
        clock, played = self._clock_s, self._played_s
        if clock and clock_s - clock[-1] <= 0.0:
            played[-1] = self._total_s
            return
        if len(clock) > 1 and self._is_straight(clock_s):
            clock[-1], played[-1] = clock_s, self._total_s
            return
        clock.append(clock_s)
        played.append(self._total_s)
        if len(clock) > _MAX_CORNERS:
            del clock[: _MAX_CORNERS // 2], played[: _MAX_CORNERS // 2]

    def _is_straight(self, clock_s: float) -> bool:
        """Tell whether the last corner lies on the line to a new one at the current total."""
        before = self._played_s[-1] - self._played_s[-2]
        before_clock = self._clock_s[-1] - self._clock_s[-2]
        after = self._total_s - self._played_s[-1]
        after_clock = clock_s - self._clock_s[-1]
        both_flat = before == 0.0 and after == 0.0
        both_rise = (
            abs(before - before_clock) < _TOLERANCE_S and abs(after - after_clock) < _TOLERANCE_S
        )
        return both_flat or both_rise
