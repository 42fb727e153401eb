"""What a robot may be told, whatever happens: the rules that every stream of twists must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

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
        simulated: Whether stamps are simulated time, which may go at any rate and stand still.
            The arm may then brake in real time, as it must before the node ends.
    """

    max_linear_speed: float
    max_angular_speed: float
    max_linear_accel: float
    max_angular_accel: float
    robot_command_timeout_s: float = 0.1
    period_s: float = 0.02
    simulated: bool = False

    @property
    def hold_s(self) -> float:
        """How long a command stays in force without a new one."""
        if self.robot_command_timeout_s == 0.0:
            return math.inf
        return max(self.robot_command_timeout_s, 2.0 * self.period_s)


@dataclass(frozen=True)
class Heard:
    """One twist as it was heard: its stamp, when it came in real time, and the norms' parts."""

    stamp_s: float
    received_s: float
    linear: tuple[float, float, float]
    angular: tuple[float, float, float]

    @property
    def is_zero(self) -> bool:
        return not any((*self.linear, *self.angular))


@dataclass(frozen=True)
class Largest:
    """The largest speeds and changes of speed in a stream; m/s, rad/s, m/s2, rad/s2."""

    linear_speed: float = 0.0
    angular_speed: float = 0.0
    linear_accel: float = 0.0
    angular_accel: float = 0.0


@dataclass
class CommandRecorder:
    """Keeps every twist and says which rules were broken.

    Attributes:
        rules: What is allowed.
        heard: The twists in order.
        silences: From when to when nothing may be commanded, in real time.
    """

    rules: Rules
    heard: list[Heard] = field(default_factory=list)
    silences: list[tuple[float, float]] = field(default_factory=list)

    def take(self, message, received_s: float) -> None:
        """Keep a geometry_msgs/TwistStamped that came at a real time, which never jumps."""
        stamp, twist = message.header.stamp, message.twist
        self.heard.append(
            Heard(
                stamp.sec + stamp.nanosec * 1e-9,
                received_s,
                (twist.linear.x, twist.linear.y, twist.linear.z),
                (twist.angular.x, twist.angular.y, twist.angular.z),
            )
        )

    def hush(self, from_s: float) -> None:
        """Take it that nothing may be commanded from a real time on."""
        self.silences.append((from_s, math.inf))

    def unhush(self, until_s: float) -> None:
        """Take it that commands may come again."""
        if self.silences:
            from_s, end_s = self.silences[-1]
            self.silences[-1] = (from_s, min(end_s, until_s))

    def violations(self, *, ends_at_rest: bool = True) -> list[str]:
        """Return a sentence per broken rule.

        Args:
            ends_at_rest: Whether the last command must be a zero; not after SIGKILL.
        """
        found = [text for item in self.heard for text in self._speed(item)]
        for before, after in pairwise(self.heard):
            found += self._step(before, after)
        for from_s, until_s in self.silences:
            early = [item for item in self.heard if from_s < item.received_s < until_s]
            if early:
                found.append(f'{len(early)} commands where silence was due: {early[0]}')
        if ends_at_rest and self.heard and not self.heard[-1].is_zero:
            found.append(f'the last command is no zero: {self.heard[-1]}')
        return found

    def largest(self) -> Largest:
        """Return the extremes; a change counts over the gap of the stamps, at least one period."""
        if not self.heard:
            return Largest()
        rates = [(0.0, 0.0)]
        for pair in pairwise(self.heard):
            gap_s, before, after = self._between(*pair)
            gap_s = max(gap_s, self.rules.period_s)
            changes = (
                math.dist(before.linear, after.linear),
                math.dist(before.angular, after.angular),
            )
            rates.append((changes[0] / gap_s, changes[1] / gap_s))
        return Largest(
            max(math.hypot(*item.linear) for item in self.heard),
            max(math.hypot(*item.angular) for item in self.heard),
            max(rate[0] for rate in rates),
            max(rate[1] for rate in rates),
        )

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

    def _between(self, before: Heard, after: Heard) -> tuple[float, Heard, Heard]:
        """Return how far apart two commands are, and both as the robot executes them."""
        rules = self.rules
        gap_s = after.stamp_s - before.stamp_s
        waited_s = after.received_s - before.received_s
        if rules.simulated and (gap_s <= 0.0 or _norms(after) < _norms(before)):
            # Where simulated time stands still or ends too late, braking goes by real time.
            return max(gap_s, min(waited_s, rules.hold_s)), before, after
        leapt = not rules.simulated and abs(gap_s - waited_s) > 2 * rules.hold_s
        # A clock that leaps ahead may mean a suspended machine, whose robot has stopped.
        suspended = leapt and gap_s > waited_s and after.is_zero
        if leapt and not suspended:
            # The clock of the stamps jumped; real time tells how long the robot waited.
            gap_s = waited_s
        # A little before and after, the node may or may not have taken it for a stall.
        if gap_s > rules.hold_s + STAMP_SLACK_S or (gap_s > rules.hold_s and after.is_zero):
            stopped = Heard(before.stamp_s, before.received_s, (0.0,) * 3, (0.0,) * 3)
            if before.is_zero or after.is_zero:
                # The robot has stopped by itself: whatever comes next begins from rest.
                return rules.period_s, stopped, after
        return gap_s, before, after

    def _step(self, before: Heard, after: Heard) -> list[str]:
        rules = self.rules
        gap_s, before, after = self._between(before, after)
        if gap_s > rules.hold_s + STAMP_SLACK_S:
            return [f'motion goes on after {gap_s:.3f} s of silence at {after.stamp_s:.3f}']
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


def _norms(item: Heard) -> float:
    return math.hypot(*item.linear, *item.angular)
