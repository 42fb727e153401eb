"""The stream of commands: how smooth it is, and how far from what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from safe_vla_ros.replay.metrics import MetricSums
    from safe_vla_ros.runtime.controller import Command
    from safe_vla_ros.types import Float64Array

MOVING_M_S = 0.005
"""Slower than this counts as standing: directions of noise are not compared."""

RECORDED_TIMEOUT_S = 0.2
"""A recorded command is in force no longer than this."""


class Smoothness:
    """Acceleration, jerk and reversals of the commanded linear velocity.

    Summed: ``acceleration_m_s2``, ``jerk_m_s3`` and the counts ``reversals`` and ``motion_s``.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._velocity: Float64Array | None = None
        self._acceleration: Float64Array | None = None

    def add(self, command: Command | None, metrics: MetricSums) -> None:
        """Add one tick's command; None, silence, separates motions."""
        if command is None:
            self._velocity = self._acceleration = None
            return
        velocity = command.linear_m_s
        if self._velocity is not None:
            acceleration = (velocity - self._velocity) / self._period_s
            metrics.add('acceleration_m_s2', float(np.linalg.norm(acceleration)))
            if self._acceleration is not None:
                jerk = (acceleration - self._acceleration) / self._period_s
                metrics.add('jerk_m_s3', float(np.linalg.norm(jerk)))
            if _opposed(velocity, self._velocity):
                metrics.count('reversals')
            self._acceleration = acceleration
        metrics.count('motion_s', self._period_s)
        self._velocity = velocity


class Agreement:
    """Commands of the replay against those in the bag, at the same time, while the bag's arm moves.

    Where it stands, the recorded policy may have been paused or between two episodes, which no bag
    tells. Summed: ``recorded/linear_m_s``, ``recorded/angular_rad_s`` (length of the difference),
    ``recorded/direction`` (cosine), ``recorded/gripper`` (difference of openings), and the counts
    ``recorded/ticks``, ``recorded/only_recorded`` (the bag moves, the replay is silent) and
    ``recorded/only_replayed`` (the replay moves, the bag stands).
    """

    def __init__(self) -> None:
        self._twist: tuple[float, Float64Array, Float64Array] | None = None
        self._opening: float | None = None
        self._commanded_opening: float | None = None

    def record_twist(self, time_s: float, linear: Float64Array, angular: Float64Array) -> None:
        """Note a recorded twist, float64 [3] each, m/s and rad/s."""
        self._twist = (time_s, linear, angular)

    def record_gripper(self, opening: float) -> None:
        """Note a recorded opening, 0..1; it holds until the next."""
        self._opening = opening

    def compare(self, time_s: float, command: Command | None, metrics: MetricSums) -> None:
        """Compare one tick's command with what is in force in the bag."""
        if command is not None and command.gripper is not None:
            self._commanded_opening = command.gripper
        if self._twist is None or time_s - self._twist[0] > RECORDED_TIMEOUT_S:
            return
        _, linear, angular = self._twist
        recorded_speed = float(np.linalg.norm(linear))
        speed = 0.0 if command is None else float(np.linalg.norm(command.linear_m_s))
        if max(recorded_speed, float(np.linalg.norm(angular))) < MOVING_M_S:
            metrics.count('recorded/only_replayed', speed > MOVING_M_S)
            return
        if command is None:
            metrics.count('recorded/only_recorded')
            return
        metrics.count('recorded/ticks')
        metrics.add('recorded/linear_m_s', float(np.linalg.norm(command.linear_m_s - linear)))
        metrics.add(
            'recorded/angular_rad_s', float(np.linalg.norm(command.angular_rad_s - angular))
        )
        if min(speed, recorded_speed) > MOVING_M_S:
            cosine = float(command.linear_m_s @ linear) / (speed * recorded_speed)
            metrics.add('recorded/direction', cosine)
        if self._opening is not None and self._commanded_opening is not None:
            metrics.add('recorded/gripper', abs(self._commanded_opening - self._opening))


def _opposed(now: Float64Array, before: Float64Array) -> bool:
    if min(np.linalg.norm(now), np.linalg.norm(before)) < MOVING_M_S:
        return False
    return bool(now @ before < 0)
