"""Where cameras see hand, bowls and plate: labels for training, without a segmentation render."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.sim.rendering import CAMERAS

if TYPE_CHECKING:
    from typing import Any

    from safe_vla_ros.sim.expert import TableView
    from safe_vla_ros.sim.rendering import SceneSnapshot
    from safe_vla_ros.types import Float64Array

MARKED = ('hand', 'bowl_1', 'bowl_2', 'plate')
RADII_M = (0.045, 0.055, 0.055, 0.08)
_HEIGHT_M = (0.0, 0.025, 0.025, 0.01)
"""Middle of a thing above its base, metres."""

_NEAREST_M = 0.02


def object_points(table: TableView, *, other_asked: bool) -> Float64Array:
    """Return hand, first and second bowl and plate, float64 [4, 3], metres in the world.

    Args:
        table: What the expert sees.
        other_asked: Whether it is asked for the second bowl.
    """
    bowls = (table.bowl, table.other_bowl)
    return np.stack([table.hand, *(bowls[::-1] if other_asked else bowls), table.plate])


def object_marks(model: Any, view: SceneSnapshot, points: Float64Array) -> Float64Array:
    """Return discs that cover things in every camera's image.

    Args:
        model: The scene's ``mujoco.MjModel``.
        view: The moment.
        points: From ``object_points``.

    Returns:
        Float64 [2, 4, 3]: by camera and thing, column, row and radius in fractions of the image's
        side. The radius is 0 for what is behind the camera.
    """
    marks = np.zeros((len(CAMERAS), len(points), 3))
    centres = points + np.array(_HEIGHT_M)[:, None] * (0.0, 0.0, 1.0)
    for index, name in enumerate(CAMERAS.values()):
        camera = model.camera(name).id
        x, y, z = ((centres - view.cam_xpos[camera]) @ view.cam_xmat[camera].reshape(3, 3)).T
        focal = 0.5 / math.tan(math.radians(float(model.cam_fovy[camera])) / 2.0)
        seen = -z > _NEAREST_M
        depth = np.where(seen, -z, 1.0)
        columns = [0.5 + focal * x / depth, 0.5 - focal * y / depth]
        radii = focal * np.array(RADII_M) / depth
        marks[index] = np.stack([*columns, radii], axis=1) * seen[:, None]
    return marks


def token_shares(marks: Float64Array, side: int) -> Float64Array:
    """Tell which cells of a square grid the discs touch.

    Args:
        marks: Float [..., 3] from ``object_marks``, of one camera.
        side: Cells per axis.

    Returns:
        Float32 [..., side * side], 1 where the cell's middle is inside the disc (which is made at
        least as large as a cell), else 0.
    """
    middle = (np.arange(side) + 0.5) / side
    radius = np.where(marks[..., 2] > 0, np.maximum(marks[..., 2], 0.71 / side), 0.0)
    dx = middle - marks[..., 0, None]
    dy = middle - marks[..., 1, None]
    distance = dx[..., None, :] ** 2 + dy[..., :, None] ** 2
    inside = distance < (radius**2)[..., None, None]
    return inside.reshape(*marks.shape[:-1], side * side).astype(np.float32)
