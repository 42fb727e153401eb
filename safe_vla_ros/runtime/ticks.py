"""The time between control ticks, taken from the clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LONGEST_HOLD_S = 0.1
"""How long a robot executes a command without a new one (MoveIt Servo's default timeout)."""

LARGEST_STEP_BACK_S = 0.1
"""A clock that goes back further than this has jumped."""


@dataclass(frozen=True)
class Tick:
    """One control tick.

    Attributes:
        now_s: The clock's time.
        elapsed_s: Time since the last tick that its command was executed, seconds; the nominal
            period for the first tick.
        expected_s: How long this tick's command will be executed, as far as is known, seconds.
        longest_s: How long a command is taken to be executed at most, seconds.
        jumped_back: Whether the clock went back since the last tick.
    """

    now_s: float
    elapsed_s: float
    expected_s: float
    longest_s: float
    jumped_back: bool = False


class TickTimer:
    """Measures ticks and foretells the next one: the median of the last five."""

    def __init__(self, rate_hz: float) -> None:
        self._nominal_s = 1.0 / rate_hz
        self._last_s: float | None = None
        self._longest_s = self._longest(self._nominal_s)
        self._intervals: deque[float] = deque(maxlen=5)

    def tick(self, now_s: float) -> Tick:
        """Take the time of a tick.

        Args:
            now_s: The clock's time, seconds.
        """
        last_s = self._last_s
        if last_s is not None and now_s < last_s - LARGEST_STEP_BACK_S:
            self.restart()
            self._last_s = now_s
            return Tick(now_s, self._nominal_s, self._nominal_s, self._longest_s, True)
        now_s = now_s if last_s is None else max(now_s, last_s)
        self._last_s = now_s
        interval_s = self._nominal_s if last_s is None else now_s - last_s
        if last_s is not None and interval_s > 0.0:
            self._intervals.append(min(interval_s, self._longest(self._nominal_s)))
        elapsed_s = min(interval_s, self._longest_s)
        expected_s = self._expected()
        self._longest_s = self._longest(expected_s)
        return Tick(now_s, elapsed_s, expected_s, self._longest_s)

    def restart(self) -> None:
        """Forget the last tick: the next one has no time before it."""
        self._last_s = None
        self._longest_s = self._longest(self._nominal_s)
        self._intervals.clear()

    def _expected(self) -> float:
        if not self._intervals:
            return self._nominal_s
        return sorted(self._intervals)[len(self._intervals) // 2]

    @staticmethod
    def _longest(expected_s: float) -> float:
        return max(LONGEST_HOLD_S, 2.0 * expected_s)
