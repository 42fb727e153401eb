"""Proprioception: the vector that a policy expects, put together by a layout of named parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from safe_vla_ros.errors import ObservationError, ParameterError
from safe_vla_ros.runtime.geometry import (
    Pose,
    canonical,
    downward_rotation_vector,
    euler_xyz_from_quaternion,
    rotation_vector_from_quaternion,
)
from safe_vla_ros.runtime.settings import ControlSettings
from safe_vla_ros.types import Float64Array

POSE_PARTS = {
    'ee_position': 3,
    'ee_axis_angle': 3,
    'ee_axis_angle_down': 3,
    'ee_euler_xyz': 3,
    'ee_quaternion': 4,
}
"""Parts that are read from ``ee_pose``, and how many numbers each makes."""

JOINT_PREFIX = 'joint:'
ALLOWED = f'{", ".join(POSE_PARTS)}, gripper_joints, {JOINT_PREFIX}<name> and zero'


def check_layout(layout: Sequence[str], gripper_joint_names: Sequence[str]) -> None:
    """Check a layout before anything runs.

    Raises:
        ParameterError: A part is unknown, or ``gripper_joints`` stands for no joint.
    """
    for part in layout:
        known = part in (*POSE_PARTS, 'gripper_joints', 'zero')
        if not known and not (part.startswith(JOINT_PREFIX) and part != JOINT_PREFIX):
            raise ParameterError(f"proprio.layout holds '{part}'; allowed are {ALLOWED}")
    if 'gripper_joints' in layout and not gripper_joint_names:
        raise ParameterError(
            'proprio.layout holds gripper_joints, so gripper.joint_names must name at least one'
        )


def count_numbers(layout: Sequence[str], gripper_joint_names: Sequence[str]) -> int:
    """Return P, the length of the vector that ``assemble_proprio`` makes of a layout."""
    sizes = {**POSE_PARTS, 'gripper_joints': len(gripper_joint_names)}
    return sum(sizes.get(part, 1) for part in layout)


def needs_pose(control: ControlSettings, layout: Sequence[str]) -> bool:
    """Tell whether ``ee_pose`` is needed, by the control side or by any part of the layout."""
    return (
        control.frame == 'ee'
        or control.command_type == 'pose'
        or control.workspace is not None
        or any(part in POSE_PARTS for part in layout)
    )


def joints_in_use(layout: Sequence[str], gripper_joint_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the joints that the layout reads, each once, in the layout's order."""
    names: dict[str, None] = {}
    for part in layout:
        if part == 'gripper_joints':
            names.update(dict.fromkeys(gripper_joint_names))
        elif part.startswith(JOINT_PREFIX):
            names[part.removeprefix(JOINT_PREFIX)] = None
    return tuple(names)


def assemble_proprio(
    layout: Sequence[str],
    *,
    pose: Pose | None,
    joints: Mapping[str, float],
    gripper_joint_names: Sequence[str],
) -> Float64Array:
    """Put the proprioception vector together.

    Args:
        layout: Parts in order: ``ee_position`` (3, metres), ``ee_axis_angle`` (3, rotation vector
            of length 0..pi, radians), ``ee_axis_angle_down`` (3, the same with x >= 0 and length
            0..2 pi, for a hand that points down), ``ee_euler_xyz`` (3, roll, pitch, yaw about fixed
            axes, radians), ``ee_quaternion`` (4, x y z w with w >= 0), ``gripper_joints`` (one per
            gripper joint), ``joint:<name>`` (1) and ``zero`` (1).
        pose: Pose of the end effector; may be None when no part needs it.
        joints: Joint positions by name, radians or metres.
        gripper_joint_names: Joints that ``gripper_joints`` stands for.

    Returns:
        The vector, float64 [P].

    Raises:
        ObservationError: A part is unknown, its source is missing, or a value is not finite.
    """
    values: list[float] = []
    for part in layout:
        if part in POSE_PARTS:
            values.extend(_pose_part(part, pose))
        elif part == 'gripper_joints':
            values.extend(_joint(joints, name) for name in gripper_joint_names)
        elif part.startswith(JOINT_PREFIX):
            values.append(_joint(joints, part.removeprefix(JOINT_PREFIX)))
        elif part == 'zero':
            values.append(0.0)
        else:
            raise ObservationError(f"unknown proprioception part '{part}'; allowed are {ALLOWED}")
    vector = np.array(values, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise ObservationError(f'proprioception {list(layout)} holds values that are not finite')
    return vector


def _pose_part(part: str, pose: Pose | None) -> list[float]:
    if pose is None:
        raise ObservationError(f"proprioception part '{part}' needs ee_pose, and there is none")
    if part == 'ee_position':
        vector = pose.position_m
    elif part == 'ee_axis_angle':
        vector = rotation_vector_from_quaternion(pose.quaternion_xyzw)
    elif part == 'ee_axis_angle_down':
        vector = downward_rotation_vector(pose.quaternion_xyzw)
    elif part == 'ee_euler_xyz':
        vector = euler_xyz_from_quaternion(pose.quaternion_xyzw)
    else:
        vector = canonical(pose.quaternion_xyzw)
    return [float(value) for value in vector]


def _joint(joints: Mapping[str, float], name: str) -> float:
    if name not in joints:
        raise ObservationError(
            f"joint_states lacks joint '{name}'; it has {sorted(joints) or 'none yet'}"
        )
    return joints[name]
