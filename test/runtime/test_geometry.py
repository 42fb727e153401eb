"""Rotations agree with one another and with rotation matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.runtime.geometry import (
    Pose,
    euler_xyz_from_quaternion,
    multiply,
    quaternion_from_rotation_vector,
    rotate,
    rotation_matrix,
    rotation_vector_from_quaternion,
)

angles = st.floats(-math.pi + 0.01, math.pi - 0.01)
vectors = st.tuples(*[st.floats(-1.7, 1.7)] * 3).map(np.array)


@settings(max_examples=50, deadline=None)
@given(vectors)
def test_a_rotation_vector_survives_the_way_through_a_quaternion(vector: np.ndarray) -> None:
    quaternion = quaternion_from_rotation_vector(vector)
    assert rotation_vector_from_quaternion(quaternion) == pytest.approx(vector, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(vectors)
def test_both_signs_of_a_quaternion_give_the_same_rotation_vector(vector: np.ndarray) -> None:
    quaternion = quaternion_from_rotation_vector(vector)
    one, other = (rotation_vector_from_quaternion(q) for q in (quaternion, -quaternion))
    assert np.linalg.norm(one) <= math.pi + 1e-12
    assert rotation_matrix(quaternion_from_rotation_vector(one)) == pytest.approx(
        rotation_matrix(quaternion_from_rotation_vector(other)), abs=1e-9
    )


@settings(max_examples=50, deadline=None)
@given(vectors, vectors, vectors)
def test_the_product_turns_by_the_right_factor_first(
    one: np.ndarray, two: np.ndarray, vector: np.ndarray
) -> None:
    left, right = quaternion_from_rotation_vector(one), quaternion_from_rotation_vector(two)
    assert rotate(multiply(left, right), vector) == pytest.approx(
        rotate(left, rotate(right, vector)), abs=1e-9
    )


@settings(max_examples=50, deadline=None)
@given(angles, st.floats(-1.5, 1.5), angles)
def test_euler_angles_are_turns_about_fixed_x_then_y_then_z(
    roll: float, pitch: float, yaw: float
) -> None:
    turn_x, turn_y, turn_z = (
        quaternion_from_rotation_vector(angle * axis)
        for angle, axis in zip((roll, pitch, yaw), np.eye(3), strict=True)
    )
    quaternion = multiply(turn_z, multiply(turn_y, turn_x))
    assert euler_xyz_from_quaternion(quaternion) == pytest.approx([roll, pitch, yaw], abs=1e-6)


def test_a_pose_is_moved_in_fixed_axes() -> None:
    pose = Pose(np.array([1.0, 2.0, 3.0]), quaternion_from_rotation_vector(np.array([0, 0, 1.0])))
    moved = pose.moved(np.array([0.1, 0.0, 0.0]), np.array([0.0, 0.0, 0.5]))
    assert moved.position_m == pytest.approx([1.1, 2.0, 3.0])
    assert rotation_vector_from_quaternion(moved.quaternion_xyzw) == pytest.approx([0, 0, 1.5])
