"""Limits of the end effector's motion: speed, acceleration, and the faces of the workspace."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from safe_vla_ros.runtime.settings import MotionLimits, Workspace
from safe_vla_ros.types import Float64Array

BRAKING_SHARE = 0.5
"""Share of the acceleration limit that braking before a face of the workspace may need."""

FACE_TOLERANCE_M = 0.002
"""How far beyond a face still counts as being at it, where motion along the face is free."""

_ROUNDING = 1e-9


def _zeros() -> Float64Array:
    return np.zeros(3)


@dataclass(frozen=True)
class LimitedTwist:
    """A twist within the limits.

    Attributes:
        linear_m_s, angular_rad_s: float64 [3] each.
        speed_clipped, acceleration_clipped, workspace_clipped: Which limits changed it.
    """

    linear_m_s: Float64Array = field(default_factory=_zeros)
    angular_rad_s: Float64Array = field(default_factory=_zeros)
    speed_clipped: bool = False
    acceleration_clipped: bool = False
    workspace_clipped: bool = False


class TwistLimiter:
    """Keeps the twist within the limits from tick to tick.

    The norm of each part is scaled and its direction kept; then the change since the last tick is
    limited in the same way. Remembers the last twist that it let through. Not thread-safe.
    """

    def __init__(self) -> None:
        self._linear = np.zeros(3)
        self._angular = np.zeros(3)

    @property
    def at_rest(self) -> bool:
        """Whether the last twist was zero."""
        return not (self._linear.any() or self._angular.any())

    @property
    def speeds(self) -> tuple[float, float]:
        """Norms of the last twist, m/s and rad/s."""
        return math.hypot(*self._linear), math.hypot(*self._angular)

    def rest(self) -> None:
        """Take it that the arm has come to rest by itself."""
        self._linear, self._angular = np.zeros(3), np.zeros(3)

    def limit(
        self,
        linear_m_s: Float64Array,
        angular_rad_s: Float64Array,
        *,
        elapsed_s: float,
        limits: MotionLimits,
        workspace: Workspace | None = None,
        position_m: Float64Array | None = None,
    ) -> LimitedTwist:
        """Return the twist to command.

        Args:
            linear_m_s: The wanted velocity in the command frame, float64 [3].
            angular_rad_s: The wanted angular velocity in the command frame, float64 [3].
            elapsed_s: Time since the last twist, which its change may use, seconds.
            limits: Largest speeds and accelerations.
            workspace: Box to stay in, or None.
            position_m: Where the end effector is, float64 [3]; needed for the box.
        """
        linear, fast = _shortened(linear_m_s, limits.max_linear_speed)
        angular, fast_angular = _shortened(angular_rad_s, limits.max_angular_speed)
        kept_in = False
        if workspace is not None and position_m is not None:
            braking = BRAKING_SHARE * limits.max_linear_accel
            linear, turned = only_inward(linear, position_m, workspace)
            linear, kept_in = kept_inside(linear, position_m, workspace, braking)
            kept_in = kept_in or turned
        linear, hasty = _approached(self._linear, linear, limits.max_linear_accel * elapsed_s)
        angular, hasty_angular = _approached(
            self._angular, angular, limits.max_angular_accel * elapsed_s
        )
        if workspace is not None and position_m is not None:
            # The faces win over the acceleration limit: nothing moves outward beyond them.
            linear, stopped = kept_inside(linear, position_m, workspace, math.inf)
            kept_in = kept_in or stopped
        self._linear, self._angular = linear, angular
        return LimitedTwist(
            linear.copy(), angular.copy(), fast or fast_angular, hasty or hasty_angular, kept_in
        )


def kept_inside(
    linear_m_s: Float64Array, position_m: Float64Array, workspace: Workspace, braking_m_s2: float
) -> tuple[Float64Array, bool]:
    """Limit the outward component near each face so that braking ends at the face.

    At a face and outside of it the outward component is removed. Inside, it may be sqrt(2 a d) at
    distance d; with a = inf it is left alone there.

    Returns:
        The velocity, float64 [3], and whether it was changed.
    """
    kept = linear_m_s.tolist()
    changed = False
    for axis, position in enumerate(position_m.tolist()):
        room_above = workspace.maximum[axis] - position
        room_below = position - workspace.minimum[axis]
        if kept[axis] > 0.0:
            allowed = math.sqrt(2 * braking_m_s2 * room_above) if room_above > 0 else 0.0
            if kept[axis] > allowed:
                kept[axis], changed = allowed, True
        elif kept[axis] < 0.0:
            allowed = math.sqrt(2 * braking_m_s2 * room_below) if room_below > 0 else 0.0
            if kept[axis] < -allowed:
                kept[axis], changed = -allowed, True
    return (np.array(kept), True) if changed else (linear_m_s, False)


def only_inward(
    linear_m_s: Float64Array, position_m: Float64Array, workspace: Workspace
) -> tuple[Float64Array, bool]:
    """Outside of the box, drop all of a velocity but what leads back across the faces passed.

    Returns:
        The velocity, float64 [3], and whether it was changed.
    """
    inward = [0.0, 0.0, 0.0]
    outside = False
    for axis, position in enumerate(position_m.tolist()):
        velocity = float(linear_m_s[axis])
        if position > workspace.maximum[axis] + FACE_TOLERANCE_M:
            outside, inward[axis] = True, min(velocity, 0.0)
        elif position < workspace.minimum[axis] - FACE_TOLERANCE_M:
            outside, inward[axis] = True, max(velocity, 0.0)
    return (np.array(inward), True) if outside else (linear_m_s, False)


def distance_outside(position_m: Float64Array, workspace: Workspace) -> float:
    """Return how far a position [3] is outside the box, metres; 0 inside."""
    outside = [
        max(low - value, value - high, 0.0)
        for value, low, high in zip(
            position_m.tolist(), workspace.minimum, workspace.maximum, strict=True
        )
    ]
    return math.hypot(*outside)


def _shortened(vector: Float64Array, longest: float) -> tuple[Float64Array, bool]:
    length = math.hypot(*vector.tolist())
    if length <= longest:
        return vector, False
    largest = float(np.abs(vector).max())
    unit = vector / largest
    return unit * (longest / math.hypot(*unit.tolist())), True


def _approached(
    last: Float64Array, wanted: Float64Array, longest_change: float
) -> tuple[Float64Array, bool]:
    change = wanted - last
    length = math.hypot(*change.tolist())
    if length <= longest_change * (1.0 + _ROUNDING):
        return wanted, False
    return last + change * (longest_change / length), True
