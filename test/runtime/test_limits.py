"""Speeds, accelerations and the workspace hold from tick to tick, whatever is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.runtime import MotionLimits, Workspace
from safe_vla_ros.runtime.limits import TwistLimiter, distance_outside, kept_inside, only_inward

LIMITS = MotionLimits(0.25, 0.8, 1.0, 3.0)
BOX = Workspace((0.2, -0.3, 0.0), (0.6, 0.3, 0.5))
vectors = st.tuples(*[st.floats(-5.0, 5.0)] * 3).map(np.array)
huge = st.tuples(*[st.floats(-1e300, 1e300)] * 3).map(np.array)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(vectors | huge, vectors | huge, st.floats(0.0, 0.1)), max_size=30))
def test_no_limit_is_exceeded_between_any_two_ticks(
    wanted: list[tuple[np.ndarray, np.ndarray, float]],
) -> None:
    limiter = TwistLimiter()
    last_linear, last_angular = np.zeros(3), np.zeros(3)
    for linear, angular, elapsed_s in wanted:
        twist = limiter.limit(linear, angular, elapsed_s=elapsed_s, limits=LIMITS)
        assert np.linalg.norm(twist.linear_m_s) <= 0.25 * (1 + 1e-9)
        assert np.linalg.norm(twist.angular_rad_s) <= 0.8 * (1 + 1e-9)
        assert np.linalg.norm(twist.linear_m_s - last_linear) <= 1.0 * elapsed_s + 1e-9
        assert np.linalg.norm(twist.angular_rad_s - last_angular) <= 3.0 * elapsed_s + 1e-9
        last_linear, last_angular = twist.linear_m_s, twist.angular_rad_s


@settings(max_examples=50, deadline=None)
@given(vectors.filter(lambda v: np.linalg.norm(v) > 1e-3))
def test_the_direction_is_kept(wanted: np.ndarray) -> None:
    twist = TwistLimiter().limit(wanted, wanted, elapsed_s=10.0, limits=LIMITS)
    unit = wanted / np.linalg.norm(wanted)
    for part in (twist.linear_m_s, twist.angular_rad_s):
        assert part == pytest.approx(unit * np.linalg.norm(part), abs=1e-9)
    assert twist.speed_clipped == (np.linalg.norm(wanted) > 0.25)


def test_a_twist_within_the_limits_passes_unchanged() -> None:
    linear, angular = np.array([0.1, 0.0, -0.1]), np.array([0.0, 0.5, 0.0])
    twist = TwistLimiter().limit(linear, angular, elapsed_s=1.0, limits=LIMITS)
    np.testing.assert_array_equal(twist.linear_m_s, linear)
    np.testing.assert_array_equal(twist.angular_rad_s, angular)
    clipped = [twist.speed_clipped, twist.acceleration_clipped, twist.workspace_clipped]
    assert not any(clipped)


def test_braking_goes_straight_to_zero() -> None:
    limiter = TwistLimiter()
    limiter.limit(np.array([0.12, 0.16, 0.0]), np.zeros(3), elapsed_s=1.0, limits=LIMITS)
    speeds = []
    while not limiter.at_rest:
        twist = limiter.limit(np.zeros(3), np.zeros(3), elapsed_s=0.03, limits=LIMITS)
        speeds.append(np.linalg.norm(twist.linear_m_s))
    assert speeds == pytest.approx([0.17, 0.14, 0.11, 0.08, 0.05, 0.02, 0.0], abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.lists(vectors, min_size=20, max_size=40), st.floats(0.005, 0.05))
def test_an_arm_that_does_what_it_is_told_stays_inside_the_box(
    wanted: list[np.ndarray], interval_s: float
) -> None:
    limiter, position = TwistLimiter(), np.array([0.58, 0.28, 0.02])
    for linear in wanted:
        twist = limiter.limit(
            linear,
            np.zeros(3),
            elapsed_s=interval_s,
            limits=LIMITS,
            workspace=BOX,
            position_m=position,
        )
        assert np.linalg.norm(twist.linear_m_s) <= 0.25 + 1e-9
        position = position + twist.linear_m_s * interval_s
    assert distance_outside(position, BOX) <= 0.25 * interval_s


def test_braking_before_a_face_stays_within_the_acceleration_limit() -> None:
    limiter, position, speeds = TwistLimiter(), np.array([0.4, 0.0, 0.2]), [0.0]
    for _ in range(150):
        twist = limiter.limit(
            np.array([0.25, 0.0, 0.0]),
            np.zeros(3),
            elapsed_s=0.02,
            limits=LIMITS,
            workspace=BOX,
            position_m=position,
        )
        position = position + twist.linear_m_s * 0.02
        speeds.append(float(twist.linear_m_s[0]))
    assert np.abs(np.diff(speeds)).max() <= 1.0 * 0.02 + 1e-9
    assert position[0] == pytest.approx(0.6, abs=2e-3)


def test_at_a_face_only_the_outward_component_is_removed() -> None:
    at_face = np.array([0.6, 0.0, 0.2])
    kept, changed = kept_inside(np.array([0.1, 0.2, -0.1]), at_face, BOX, 1.0)
    assert kept.tolist() == [0.0, 0.2, -0.1]
    assert changed
    inward = np.array([-0.1, 0.2, -0.1])
    assert kept_inside(inward, at_face, BOX, 1.0) == (pytest.approx(inward), False)


def test_outside_only_inward_motion_is_allowed() -> None:
    outside = np.array([0.62, 0.0, 0.2])
    kept, changed = only_inward(np.array([-0.1, 0.2, 0.3]), outside, BOX)
    assert kept.tolist() == [-0.1, 0.0, 0.0]
    assert changed
    assert only_inward(np.array([0.1, 0.2, 0.3]), outside, BOX)[0].tolist() == [0.0, 0.0, 0.0]
    corner = np.array([0.62, 0.0, -0.02])
    assert only_inward(np.array([-0.1, 0.2, 0.3]), corner, BOX)[0].tolist() == [-0.1, 0.0, 0.3]


def test_a_jump_of_the_measured_position_beyond_a_face_stops_outward_motion_at_once() -> None:
    limiter = TwistLimiter()
    fast = np.array([0.25, 0.0, 0.0])
    limiter.limit(fast, np.zeros(3), elapsed_s=1.0, limits=LIMITS)
    twist = limiter.limit(
        fast,
        np.zeros(3),
        elapsed_s=0.02,
        limits=LIMITS,
        workspace=BOX,
        position_m=np.array([0.61, 0.0, 0.2]),
    )
    assert twist.linear_m_s[0] == 0.0
    assert twist.workspace_clipped


def test_distance_outside_is_measured_to_the_nearest_point_of_the_box() -> None:
    assert distance_outside(np.array([0.4, 0.0, 0.2]), BOX) == 0.0
    assert distance_outside(np.array([0.63, 0.34, 0.2]), BOX) == pytest.approx(0.05)
