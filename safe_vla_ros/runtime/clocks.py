"""Clocks that need no ROS."""

from __future__ import annotations

import time


class SteadyClock:
    """A clock that never stands still and never jumps."""

    def now_s(self) -> float:
        """Return the monotonic time, seconds."""
        return time.monotonic()


class ManualClock:
    """A clock that goes where it is told: simulated time, bag time, tests."""

    def __init__(self, now_s: float = 1.0) -> None:
        self._now_s = now_s

    def now_s(self) -> float:
        """Return the time it was set to, seconds."""
        return self._now_s

    def set(self, now_s: float) -> None:
        """Go to a time, seconds; zero stamps are no stamps, so begin above zero."""
        self._now_s = now_s

    def advance(self, by_s: float) -> None:
        """Go on by some seconds."""
        self._now_s += by_s
