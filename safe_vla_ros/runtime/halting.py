"""The end of a motion: decelerate, repeat zeros for a while, then be silent."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from safe_vla_ros.runtime.settings import MotionLimits

LONGEST_CLOSING_S = 1.9
"""A halt before deactivation or exit ends within this time, whatever the limits say."""

_CLOSING_RAMP_S = 1.2
_TOLERANCE_S = 1e-9


class Phase(Enum):
    """Where a halt stands."""

    SILENT = 'silent'
    MOVING = 'moving'
    STOPPING = 'stopping'


class HaltSequence:
    """Counts the zeros of a halt in time that passes; before the first motion it is silent."""

    def __init__(self) -> None:
        self.phase = Phase.SILENT
        self._zeros_s = 0.0
        self._zeros_begun = False
        self._closing_s: float | None = None

    @property
    def silent(self) -> bool:
        """Whether nothing is to be published."""
        return self.phase is Phase.SILENT

    def move(self) -> None:
        """Note that a command of motion is being published."""
        self.phase = Phase.MOVING
        self._zeros_begun = False

    def begin(self) -> None:
        """Begin to stop, unless that has begun or nothing moves."""
        if self.phase is Phase.MOVING:
            self.phase = Phase.STOPPING

    def begin_closing(self) -> None:
        """Begin to stop for good, within ``LONGEST_CLOSING_S``."""
        self.begin()
        if self._closing_s is None:
            self._closing_s = 0.0

    def reopen(self) -> None:
        """Take a closing back; what is still moving goes on stopping."""
        self._closing_s = None

    def braking_limits(self, limits: MotionLimits, speeds: tuple[float, float]) -> MotionLimits:
        """Return the limits to stop with.

        They are the given ones, but a closing halt that would take too long brakes harder.

        Args:
            limits: The limits of motion.
            speeds: Speed now, m/s and rad/s.
        """
        if self._closing_s is None:
            return limits
        left_s = max(_CLOSING_RAMP_S - self._closing_s, 1e-3)
        return replace(
            limits,
            max_linear_accel=max(limits.max_linear_accel, speeds[0] / left_s),
            max_angular_accel=max(limits.max_angular_accel, speeds[1] / left_s),
        )

    def step(self, elapsed_s: float) -> None:
        """Let time pass.

        Args:
            elapsed_s: Time since the last tick, seconds.
        """
        if self._closing_s is not None:
            self._closing_s += elapsed_s
        if self._zeros_begun:
            self._zeros_s += elapsed_s

    def may_publish_zero(self, duration_s: float) -> bool:
        """Tell, with the arm at rest, whether a zero is due; the first one always is.

        Args:
            duration_s: How long zeros are repeated, seconds.
        """
        if not self._zeros_begun:
            self._zeros_begun, self._zeros_s = True, 0.0
            return True
        closing_ended = self._closing_s is not None and self._closing_s >= LONGEST_CLOSING_S
        if closing_ended or self._zeros_s > duration_s + _TOLERANCE_S:
            self.phase = Phase.SILENT
            return False
        return True
