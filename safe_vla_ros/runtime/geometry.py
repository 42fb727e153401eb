"""Rotations as quaternions (x, y, z, w), rotation vectors and Euler angles; the pose of a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safe_vla_ros.types import Float64Array

_SMALL_ANGLE_RAD = 1e-12


@dataclass(frozen=True)
class Pose:
    """Position and orientation of the end effector.

    Attributes:
        position_m: float64 [3], metres.
        quaternion_xyzw: Unit quaternion, float64 [4].
    """

    position_m: Float64Array
    quaternion_xyzw: Float64Array

    def moved(self, linear_m: Float64Array, rotation_rad: Float64Array) -> Pose:
        """Return this pose displaced in the fixed frame.

        Args:
            linear_m: Displacement, float64 [3], metres.
            rotation_rad: Rotation vector about axes of the fixed frame, float64 [3], radians.
        """
        turned = multiply(quaternion_from_rotation_vector(rotation_rad), self.quaternion_xyzw)
        return Pose(self.position_m + linear_m, turned / math.hypot(*turned))


def multiply(left: Float64Array, right: Float64Array) -> Float64Array:
    """Return the Hamilton product: the rotation ``right`` followed by ``left`` in fixed axes."""
    x1, y1, z1, w1 = left.tolist()
    x2, y2, z2, w2 = right.tolist()
    return np.array(
        [
            w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
            w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
            w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
            w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        ]
    )


def rotate(quaternion_xyzw: Float64Array, vector: Float64Array) -> Float64Array:
    """Return ``vector`` [3], given in the rotated frame, in the fixed frame."""
    return rotation_matrix(quaternion_xyzw) @ vector


def rotation_matrix(quaternion_xyzw: Float64Array) -> Float64Array:
    """Return the rotation matrix [3, 3] of a unit quaternion."""
    x, y, z, w = quaternion_xyzw.tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation_vector(rotation_rad: Float64Array) -> Float64Array:
    """Return the unit quaternion [4] of a rotation vector [3] in radians."""
    angle = math.hypot(*rotation_rad)
    if angle < _SMALL_ANGLE_RAD:
        return np.array([0.0, 0.0, 0.0, 1.0])
    axis = rotation_rad * (math.sin(angle / 2) / angle)
    return np.append(axis, math.cos(angle / 2))


def rotation_vector_from_quaternion(quaternion_xyzw: Float64Array) -> Float64Array:
    """Return the rotation vector [3] in radians, of length 0..pi, of a unit quaternion [4]."""
    return _rotation_vector(canonical(quaternion_xyzw))


def downward_rotation_vector(quaternion_xyzw: Float64Array) -> Float64Array:
    """Return the rotation vector [3] in radians, of length 0..2 pi, whose x is not negative.

    The rotation of a hand that points down is about pi; the shortest vector jumps from one end of
    its axis to the other there, this one does not. It is what robosuite makes of its quaternions.
    """
    return _rotation_vector(-quaternion_xyzw if quaternion_xyzw[0] < 0 else quaternion_xyzw)


def _rotation_vector(q: Float64Array) -> Float64Array:
    sine = math.hypot(*q[:3])
    if sine < _SMALL_ANGLE_RAD:
        return np.zeros(3)
    return np.asarray(q[:3] * (2.0 * math.atan2(sine, q[3]) / sine), dtype=np.float64)


def euler_xyz_from_quaternion(quaternion_xyzw: Float64Array) -> Float64Array:
    """Return roll, pitch and yaw [3] in radians: turns about the fixed x, then y, then z axis."""
    x, y, z, w = quaternion_xyzw.tolist()
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.array([roll, pitch, yaw])


def canonical(quaternion_xyzw: Float64Array) -> Float64Array:
    """Return the same rotation as the quaternion [4] with w >= 0."""
    return -quaternion_xyzw if quaternion_xyzw[3] < 0 else quaternion_xyzw
