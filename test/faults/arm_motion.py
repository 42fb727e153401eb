"""How far an arm goes that executes twists: a robot's model, with its own watchdog or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from command_rules import Heard


@dataclass(frozen=True)
class Stop:
    """How a motion ended.

    Attributes:
        time_s: From the cause to rest, seconds; infinite where the arm never rests.
        distance_m: Path of the end effector in that time, metres.
    """

    time_s: float
    distance_m: float


def stop_after(commands: Sequence[Heard], cause_s: float, hold_s: float) -> Stop:
    """Return how an arm comes to rest after a cause.

    The arm goes at the speed of the newest command at once, until the next one.

    Args:
        commands: What the robot received, in order; real time.
        cause_s: When the cause came, real time.
        hold_s: How long the robot's own watchdog holds a command, seconds; infinite without one.

    Raises:
        ValueError: The arm rested before the cause came.
    """
    starts = [command.received_s for command in commands]
    distance_m = 0.0
    moving = False
    for command, next_s in zip(commands, [*starts[1:], math.inf], strict=True):
        if next_s <= cause_s:
            continue
        speed = math.hypot(*command.linear)
        begin_s = max(command.received_s, cause_s)
        end_s = min(next_s, command.received_s + hold_s)
        at_rest = speed == 0.0 or end_s <= begin_s
        if at_rest and not moving:
            msg = 'the arm rested before the cause came'
            raise ValueError(msg)
        if at_rest:
            return Stop(begin_s - cause_s, distance_m)
        moving = True
        distance_m += speed * (end_s - begin_s)
        if end_s < next_s:
            return Stop(end_s - cause_s, distance_m)
    return Stop(math.inf, math.inf)


class IntegratedPosition:
    """Where the end effector is, metres, when every twist is executed at once."""

    def __init__(self, position_m: tuple[float, float, float], hold_s: float) -> None:
        self._position_m = position_m
        self._hold_s = hold_s
        self._linear = (0.0, 0.0, 0.0)
        self._since_s = self._until_s = 0.0

    def take(self, linear: tuple[float, float, float], now_s: float) -> None:
        """Execute a velocity, m/s, from a time on."""
        self.at(now_s)
        self._linear, self._until_s = linear, now_s + self._hold_s

    def at(self, now_s: float) -> tuple[float, float, float]:
        """Return the position at a time that is not before the last one, metres."""
        moved_s = max(0.0, min(now_s, self._until_s) - self._since_s)
        self._since_s = max(self._since_s, now_s)
        x, y, z = (
            before + velocity * moved_s
            for before, velocity in zip(self._position_m, self._linear, strict=True)
        )
        self._position_m = x, y, z
        return self._position_m
