"""The time between control ticks, and whether it can be trusted."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from safe_vla_ros.runtime.clock_watch import ClockReading, ClockWatch
from safe_vla_ros.types import Clock

DEFAULT_HOLD_S = 0.1
"""How long a robot executes a command without a new one (MoveIt Servo's default timeout)."""

NO_READING = ClockReading()


@dataclass(frozen=True)
class Tick:
    """One control tick.

    Attributes:
        now_s: The clock's time.
        elapsed_s: Time since the last tick, seconds; the nominal period for the first tick and
            after a stall.
        expected_s: How long this tick's command will be executed, as far as is known, seconds.
        longest_s: How long a command is executed at most, seconds.
        gap_s: Time since the last tick, seconds.
        stalled: Whether the last tick was so long ago that the robot has stopped by itself.
        clock: What the clock did since the last tick.
    """

    now_s: float
    elapsed_s: float
    expected_s: float
    longest_s: float
    gap_s: float
    stalled: bool = False
    clock: ClockReading = NO_READING


class TickTimer:
    """Measures ticks on one clock and foretells the next one: the median of the last five."""

    def __init__(
        self, rate_hz: float, *, hold_s: float = DEFAULT_HOLD_S, as_the_clock_moves: bool = False
    ) -> None:
        """Begin.

        Args:
            rate_hz: Nominal rate of the ticks.
            hold_s: How long the robot holds a command; 0 holds it for ever.
            as_the_clock_moves: Whether ticks may be as far apart as the clock's own steps: the
                robot lives on the same clock and cannot stop in between.
        """
        self._nominal_s = 1.0 / rate_hz
        self._hold_s = hold_s
        self._adaptive = as_the_clock_moves
        self._last_s: float | None = None
        self._usual_s = self._nominal_s
        self._intervals: deque[float] = deque(maxlen=5)

    def tick(self, now_s: float) -> Tick:
        """Take the time of a tick.

        Args:
            now_s: The clock's time, seconds; a time before the last tick's counts as the same.
        """
        last_s = self._last_s
        now_s = now_s if last_s is None else max(now_s, last_s)
        self._last_s = now_s
        interval_s = self._nominal_s if last_s is None else now_s - last_s
        allowed_s = self._longest(self._hold_s or DEFAULT_HOLD_S)
        if last_s is not None and interval_s > 0.0:
            self._intervals.append(min(interval_s, max(DEFAULT_HOLD_S, 2.0 * self._nominal_s)))
        expected_s = self._expected()
        if self._adaptive:
            self._usual_s = max(self._nominal_s, expected_s)
        longest_s = self._longest(self._hold_s) if self._hold_s else math.inf
        if interval_s > allowed_s:
            return Tick(now_s, self._nominal_s, expected_s, longest_s, interval_s, stalled=True)
        return Tick(now_s, interval_s, expected_s, longest_s, interval_s)

    def restart(self) -> None:
        """Forget the last tick: the next one has no time before it."""
        self._last_s = None
        self._usual_s = self._nominal_s
        self._intervals.clear()

    def _expected(self) -> float:
        if not self._intervals:
            return self._nominal_s
        return sorted(self._intervals)[len(self._intervals) // 2]

    def _longest(self, hold_s: float) -> float:
        return max(hold_s, 2.0 * self._usual_s)


class TickClock:
    """Measures ticks on the clock of stamps and on a steady one, and takes the one that counts.

    System time may be set while the arm moves, so durations come from the steady clock. Simulated
    time is the robot's own, so durations come from it, as long as it moves.
    """

    def __init__(
        self,
        clock: Clock,
        steady: Clock,
        *,
        rate_hz: float,
        hold_s: float,
        simulated: bool,
    ) -> None:
        """Begin; arguments as for ``TickTimer``.

        Args:
            clock: Time of stamps.
            steady: A clock that never stops; ``clock`` itself where there is no other.
            rate_hz: Nominal rate of the ticks.
            hold_s: How long the robot holds a command, seconds.
            simulated: Whether ``clock`` may go at any rate and stand still.
        """
        self._clock, self._steady = clock, steady
        self._nominal_s = 1.0 / rate_hz
        self._simulated = simulated
        self._timer = TickTimer(rate_hz, hold_s=hold_s, as_the_clock_moves=True)
        self._steady_timer = TickTimer(rate_hz, hold_s=hold_s)
        self._watch = ClockWatch(simulated=simulated)
        self._stood_still = False
        self._unseen_jump_s = 0.0

    def stands_still(self) -> bool:
        """Look at the clock between two ticks, to find out whether it stands still."""
        reading = self._watch.look(self._clock.now_s(), self._steady.now_s())
        self._unseen_jump_s += reading.jump_s
        return reading.standstill_s > 0.0

    def tick(self, *, closing: bool) -> Tick:
        """Measure a tick.

        Args:
            closing: Whether a halt is under way that must end even if the clock stands still.
        """
        now_s, steady_s = self._clock.now_s(), self._steady.now_s()
        reading = self._watch.look(now_s, steady_s)
        reading = replace(reading, jump_s=reading.jump_s + self._unseen_jump_s)
        self._unseen_jump_s = 0.0
        if reading.jump_s:
            self._timer.restart()
        tick, steady = self._timer.tick(now_s), self._steady_timer.tick(steady_s)
        if self._simulated and not (closing or reading.standstill_s or reading.jump_s):
            self._stood_still = False
            return replace(tick, clock=reading)
        steady = replace(steady, now_s=tick.now_s, clock=reading)
        if not self._simulated:
            # A clock that leapt ahead of steady time: the machine was suspended.
            gap_s = steady.gap_s + max(0.0, reading.jump_s)
            return replace(steady, gap_s=gap_s, stalled=steady.stalled or reading.jump_s > 0.0)
        # Ticks followed the simulated clock until now, so the last one may be long ago.
        first, self._stood_still = not self._stood_still, True
        elapsed_s = min(steady.elapsed_s, self._nominal_s) if first else steady.elapsed_s
        return replace(steady, elapsed_s=elapsed_s, stalled=False)
