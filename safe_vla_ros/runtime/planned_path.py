"""The way that the rest of a chunk would take the end effector."""

from __future__ import annotations

from collections.abc import Iterable

from safe_vla_ros.runtime.geometry import Pose, rotation_matrix
from safe_vla_ros.types import Float64Array


def planned_path(
    pose: Pose, rest: Iterable[tuple[float, Float64Array]], *, frame: str
) -> list[Pose]:
    """Integrate displacements from a pose, without limits.

    Args:
        pose: Where the end effector is.
        rest: Durations in seconds and displacements [6], metres and radians, in order.
        frame: ``base`` or ``ee``: the frame of the displacements.

    Returns:
        The pose itself and the one after each displacement.
    """
    poses = [pose]
    for _, displacement in rest:
        linear, rotation = displacement[:3], displacement[3:]
        if frame == 'ee':
            turn = rotation_matrix(poses[-1].quaternion_xyzw)
            linear, rotation = turn @ linear, turn @ rotation
        poses.append(poses[-1].moved(linear, rotation))
    return poses
