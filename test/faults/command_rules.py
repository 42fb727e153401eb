"""What a robot may be told, whatever happens: the rules that every stream of twists must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

STAMP_SLACK_S = 0.01
"""A stamp is taken a little later than the time that the limiter saw."""

ROUNDING = 1e-6


@dataclass(frozen=True)
class Rules:
    """Limits of the node under test, SI units.

    Attributes:
        max_linear_speed, max_angular_speed, max_linear_accel, max_angular_accel: As its parameters.
        robot_command_timeout_s: How long the robot holds a command; 0 holds it for ever.
        period_s: Control period.
    """

    max_linear_speed: float
    max_angular_speed: float
    max_linear_accel: float
    max_angular_accel: float
    robot_command_timeout_s: float = 0.1
    period_s: float = 0.02

    @property
    def hold_s(self) -> float:
        """How long a command stays in force without a new one."""
        if self.robot_command_timeout_s == 0.0:
            return math.inf
        return max(self.robot_command_timeout_s, 2.0 * self.period_s)


@dataclass(frozen=True)
class Heard:
    """One twist as it was heard: its stamp, when it came in steady time, and the norms' parts."""

    stamp_s: float
    received_s: float
    linear: tuple[float, float, float]
    angular: tuple[float, float, float]

    @property
    def is_zero(self) -> bool:
        return not any((*self.linear, *self.angular))


@dataclass
class CommandRecorder:
    """Keeps every twist and says which rules were broken."""

    rules: Rules
    heard: list[Heard] = field(default_factory=list)

    def take(self, message, received_s: float) -> None:
        """Keep a geometry_msgs/TwistStamped that came at a steady time."""
        stamp, twist = message.header.stamp, message.twist
        self.heard.append(
            Heard(
                stamp.sec + stamp.nanosec * 1e-9,
                received_s,
                (twist.linear.x, twist.linear.y, twist.linear.z),
                (twist.angular.x, twist.angular.y, twist.angular.z),
            )
        )

    def violations(self, *, ends_at_rest: bool = True) -> list[str]:
        """Return a sentence per broken rule.

        Args:
            ends_at_rest: Whether the last command must be a zero; not after SIGKILL.
        """
        found = [text for item in self.heard for text in self._speed(item)]
        for before, after in zip(self.heard, self.heard[1:], strict=False):
            found += self._step(before, after)
        if ends_at_rest and self.heard and not self.heard[-1].is_zero:
            found.append(f'the last command is no zero: {self.heard[-1]}')
        return found

    def _speed(self, item: Heard) -> list[str]:
        rules = self.rules
        speeds = {
            'linear': (math.hypot(*item.linear), rules.max_linear_speed),
            'angular': (math.hypot(*item.angular), rules.max_angular_speed),
        }
        return [
            f'{name} speed {speed:.6g} is above the limit {limit:g} at {item.stamp_s:.3f}'
            for name, (speed, limit) in speeds.items()
            if not speed <= limit * (1.0 + ROUNDING)
        ]

    def _step(self, before: Heard, after: Heard) -> list[str]:
        rules = self.rules
        gap_s = after.stamp_s - before.stamp_s
        waited_s = after.received_s - before.received_s
        if abs(gap_s - waited_s) > 2 * rules.hold_s:
            # The clock of the stamps jumped; steady time tells how long the robot waited.
            gap_s = waited_s
        if gap_s > rules.hold_s + STAMP_SLACK_S:
            # The robot has stopped by itself: whatever comes next begins from rest.
            if not (before.is_zero or after.is_zero):
                return [f'motion goes on after {gap_s:.3f} s of silence at {after.stamp_s:.3f}']
            stopped = Heard(before.stamp_s, before.received_s, (0.0,) * 3, (0.0,) * 3)
            before, gap_s = stopped, rules.period_s
        allowed_s = max(gap_s, 0.0) + STAMP_SLACK_S
        changes = {
            'linear': (math.dist(before.linear, after.linear), rules.max_linear_accel),
            'angular': (math.dist(before.angular, after.angular), rules.max_angular_accel),
        }
        return [
            f'{name} velocity changes by {change:.6g} within {gap_s:.4f} s at {after.stamp_s:.3f}; '
            f'allowed is {limit:g} per second'
            for name, (change, limit) in changes.items()
            if not change <= limit * allowed_s * (1.0 + ROUNDING) + ROUNDING
        ]
