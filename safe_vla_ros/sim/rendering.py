"""Headless camera views of LIBERO's scenes, upright, off the physics thread."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from safe_vla_ros.types import BoolArray, Float64Array, UInt8Array

CAMERA_SIZES_PX: dict[str, int] = {'agentview': 256, 'wrist': 256}
"""Side of the square image of every camera, pixels, in the model's order."""

CAMERAS = {'agentview': 'agentview', 'wrist': 'robot0_eye_in_hand'}
"""LIBERO's own names of the cameras."""

SIDE_PX = 256
_HIDDEN_GROUP = 5
_COLLISION_GROUP = 0
_MODEL_LOCK = threading.Lock()
"""Renderers in two threads may share a model, of which each changes something for a moment."""


def use_headless_gl() -> None:
    """Ask MuJoCo for EGL without a display and software GL for one thread.

    Call it before MuJoCo is imported; values that the user set are kept.
    """
    os.environ.setdefault('MUJOCO_GL', 'egl')
    os.environ.setdefault('EGL_PLATFORM', 'surfaceless')
    os.environ.setdefault('LP_NUM_THREADS', '1')


@dataclass(frozen=True)
class SceneSnapshot:
    """What a picture of a scene needs: copies of the poses that kinematics computed."""

    geom_xpos: Float64Array
    geom_xmat: Float64Array
    site_xpos: Float64Array
    site_xmat: Float64Array
    cam_xpos: Float64Array
    cam_xmat: Float64Array
    light_xpos: Float64Array
    light_xdir: Float64Array


_POSES = tuple(SceneSnapshot.__annotations__)


def take_snapshot(data: Any) -> SceneSnapshot:
    """Copy the poses of a ``mujoco.MjData`` whose kinematics are computed."""
    return SceneSnapshot(**{name: np.array(getattr(data, name)) for name in _POSES})


class Renderer:
    """Renders snapshots of a scene; make and use it in one thread (the GL context belongs to it).

    Poses come from the snapshot, so the arm may step on in another thread, and even be reset. The
    pictures are upright and not mirrored, unlike LIBERO's own observations.
    """

    def __init__(self, model: Any, *, stock: bool = False, culling: bool = True) -> None:
        """Create an off-screen buffer.

        Args:
            model: The scene's ``mujoco.MjModel``.
            stock: Draw as the benchmark does: with shadows, reflections and 4 samples per pixel.
            culling: Leave out what the camera cannot see; the pictures are the same. Not with
                shadows, which things out of view cast, too.
        """
        use_headless_gl()
        import mujoco  # noqa: PLC0415  (after use_headless_gl)

        self._mujoco = mujoco
        self._model = model
        self._data = mujoco.MjData(model)
        self._culling = culling and not stock
        with _MODEL_LOCK:
            samples = model.vis.quality.offsamples
            model.vis.quality.offsamples = 4 if stock else 0
            self._renderer: Any = mujoco.Renderer(model, SIDE_PX, SIDE_PX)
            model.vis.quality.offsamples = samples
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = stock
        self._options = mujoco.MjvOption()
        self._options.geomgroup[_COLLISION_GROUP] = 0
        self._options.geomgroup[_HIDDEN_GROUP] = 0
        self._camera_ids = {name: model.camera(own).id for name, own in CAMERAS.items()}

    def render(self, snapshot: SceneSnapshot, camera: str) -> UInt8Array:
        """Render one camera.

        Args:
            snapshot: State to show, from ``SimulatedPanda.snapshot``.
            camera: Name in ``CAMERA_SIZES_PX``.

        Returns:
            uint8 [256, 256, 3] RGB, the top row first.
        """
        for name in _POSES:
            getattr(self._data, name)[:] = getattr(snapshot, name)
        camera_id = self._camera_ids[camera]
        with _MODEL_LOCK:
            groups = self._model.geom_group.copy()
            if self._culling:
                self._model.geom_group[~self._in_view(camera_id)] = _HIDDEN_GROUP
            try:
                self._renderer.update_scene(self._data, camera_id, self._options)
            finally:
                self._model.geom_group[:] = groups
        return np.ascontiguousarray(self._renderer.render())

    def segment(self, snapshot: SceneSnapshot, camera: str) -> NDArray[np.int64]:
        """Tell what each pixel of ``render`` shows.

        Returns:
            int64 [256, 256]: numbers of the model's geoms, -1 where there is none.
        """
        self._renderer.enable_segmentation_rendering()
        try:
            shown: Any = self.render(snapshot, camera)
        finally:
            self._renderer.disable_segmentation_rendering()
        is_geom = shown[..., 1] == self._mujoco.mjtObj.mjOBJ_GEOM
        return np.where(is_geom, shown[..., 0], -1).astype(np.int64)

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()

    def _in_view(self, camera_id: int) -> BoolArray:
        """Tell which geoms' bounding spheres the camera can see, bool [ngeom]."""
        data, radius = self._data, self._model.geom_rbound
        axes = data.cam_xmat[camera_id].reshape(3, 3)
        x, y, z = ((data.geom_xpos - data.cam_xpos[camera_id]) @ axes).T
        half = math.radians(float(self._model.cam_fovy[camera_id])) / 2.0
        cosine, sine = math.cos(half), math.sin(half)
        # The camera looks along -z; a sphere is out if it lies beyond a side of the square cone.
        seen = (-z > -radius) & (np.maximum(abs(x), abs(y)) * cosine + z * sine < radius)
        visible: BoolArray = seen | (radius == 0.0)
        return visible
