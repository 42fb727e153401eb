"""From a model's numbers to metres, radians and gripper openings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.types import ActionChunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safe_vla_ros.types import Float64Array, PolicySettings, PruningRecord

TRANSLATION_AND_GRIPPER = 4
TRANSLATION_ROTATION_AND_GRIPPER = 7


def to_chunk(
    actions: NDArray[np.floating], settings: PolicySettings, record: PruningRecord
) -> ActionChunk:
    """Convert model actions to a chunk in physical units.

    Args:
        actions: [T, 4] as x, y, z, gripper or [T, 7] as x, y, z, rotation, gripper, in model units.
        settings: Scaling, rotation convention and the gripper's open and closed values.
        record: What pruning did, passed on.

    Returns:
        Displacements in metres, rotation vectors in radians, openings clipped to 0..1.

    Raises:
        ValueError: The number of action dimensions is neither 4 nor 7.
        NonFiniteError: An action is NaN or infinite; the whole chunk is refused.
    """
    values = np.asarray(actions, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] not in (
        TRANSLATION_AND_GRIPPER,
        TRANSLATION_ROTATION_AND_GRIPPER,
    ):
        msg = f'actions must be [T, 4] or [T, 7] for an end effector, got {list(values.shape)}'
        raise ValueError(msg)
    if not np.isfinite(values).all():
        step, dimension = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        value = values[step, dimension]
        msg = f'the model returned {value} for action {step}, dimension {dimension}'
        raise NonFiniteError(msg)
    rotation = np.zeros((len(values), 3))
    if values.shape[1] == TRANSLATION_ROTATION_AND_GRIPPER:
        rotation = values[:, 3:6] * settings.angular_scale_rad
        if settings.rotation == 'euler_xyz':
            rotation = np.stack([_rotation_vector_from_euler_xyz(angles) for angles in rotation])
    closed, opened = settings.gripper_closed_value, settings.gripper_open_value
    opening = np.clip((values[:, -1] - closed) / (opened - closed), 0.0, 1.0)
    return ActionChunk(values[:, :3] * settings.linear_scale_m, rotation, opening, record)


def _rotation_vector_from_euler_xyz(angles: Float64Array) -> Float64Array:
    """Extrinsic x, y, z angles (radians) to axis times angle, by the product of quaternions."""
    half = angles / 2
    (sx, sy, sz), (cx, cy, cz) = np.sin(half), np.cos(half)
    w = cx * cy * cz + sx * sy * sz
    vector = np.array(
        [sx * cy * cz - cx * sy * sz, cx * sy * cz + sx * cy * sz, cx * cy * sz - sx * sy * cz]
    )
    if w < 0:
        w, vector = -w, -vector
    norm = float(np.linalg.norm(vector))
    if norm == 0.0:
        return np.zeros(3)
    scaled: Float64Array = vector * (2.0 * float(np.arctan2(norm, w)) / norm)
    return scaled
