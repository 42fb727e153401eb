"""The target of pose commands: the limited twist integrated from where the arm is."""

from __future__ import annotations

import math

from safe_vla_ros.runtime.geometry import Pose, canonical, multiply
from safe_vla_ros.types import Float64Array

LARGEST_LEAD_M = 0.1
LARGEST_LEAD_RAD = 0.5


class PoseTarget:
    """Integrates twists; a target never leads the arm further than it could follow."""

    def __init__(self) -> None:
        self._base: Pose | None = None
        self._linear: Float64Array | None = None
        self._angular: Float64Array | None = None

    @property
    def base(self) -> Pose | None:
        """Where the target stands now, or None before the first motion."""
        return self._base

    def advance(self, elapsed_s: float) -> None:
        """Move the target by the last twist.

        Args:
            elapsed_s: How long that twist was in force, seconds.
        """
        if self._base is not None and self._linear is not None and self._angular is not None:
            self._base = self._base.moved(self._linear * elapsed_s, self._angular * elapsed_s)
        self._linear = self._angular = None

    def start(self, pose: Pose) -> None:
        """Begin at the arm's pose, unless the target already stands somewhere."""
        if self._base is None:
            self._base = pose

    def leads_too_far(self, pose: Pose, linear_m: Float64Array, rotation_rad: Float64Array) -> bool:
        """Tell whether a motion would take the target further away from an arm that is behind.

        Args:
            pose: Where the arm is.
            linear_m: The wanted displacement, float64 [3], metres.
            rotation_rad: The wanted rotation vector, float64 [3], radians.
        """
        if self._base is None:
            return False
        ahead = self._base.moved(linear_m, rotation_rad)
        distance_m, angle_rad = _apart(ahead, pose)
        if distance_m <= LARGEST_LEAD_M and angle_rad <= LARGEST_LEAD_RAD:
            return False
        distance_now_m, angle_now_rad = _apart(self._base, pose)
        return distance_m > max(distance_now_m, LARGEST_LEAD_M) or angle_rad > max(
            angle_now_rad, LARGEST_LEAD_RAD
        )

    def command(
        self, linear_m_s: Float64Array, angular_rad_s: Float64Array, interval_s: float
    ) -> Pose | None:
        """Return the target at the end of the coming interval, or None before the first motion."""
        if self._base is None:
            return None
        self._linear, self._angular = linear_m_s, angular_rad_s
        return self._base.moved(linear_m_s * interval_s, angular_rad_s * interval_s)

    def clear(self) -> None:
        """Forget the target; the next motion begins at the arm's pose."""
        self._base = self._linear = self._angular = None


def _apart(one: Pose, other: Pose) -> tuple[float, float]:
    """Return the distance in metres and the angle in radians between two poses."""
    conjugate = other.quaternion_xyzw * (-1.0, -1.0, -1.0, 1.0)
    turn = canonical(multiply(one.quaternion_xyzw, conjugate))
    angle_rad = 2 * math.atan2(math.hypot(*turn[:3]), turn[3])
    return math.dist(one.position_m, other.position_m), angle_rad
