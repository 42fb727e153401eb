"""Headless camera views of the simulated arm."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from safe_vla_ros.types import Float64Array, UInt8Array

CAMERA_SIZES_PX: dict[str, int] = {'corner': 224, 'gripper': 112}
"""Side of the square image of every camera, pixels, in the model's order."""

GOAL_RADIUS_M = 0.025


def use_headless_gl() -> None:
    """Ask MuJoCo for EGL without a display and software GL for one thread.

    Call it before MuJoCo is imported; values that the user set are kept.
    """
    os.environ.setdefault('MUJOCO_GL', 'egl')
    os.environ.setdefault('EGL_PLATFORM', 'surfaceless')
    os.environ.setdefault('LP_NUM_THREADS', '1')


@dataclass(frozen=True)
class SceneSnapshot:
    """What a picture of the arm needs: copies of positions."""

    qpos: Float64Array
    mocap_pos: Float64Array
    mocap_quat: Float64Array


@dataclass(frozen=True)
class _FreeCamera:
    azimuth_deg: float = 150.0
    elevation_deg: float = -40.0
    distance_m: float = 1.0
    lookat_m: tuple[float, float, float] = (0.0, 0.72, 0.12)


class Renderer:
    """Renders snapshots of an arm; make and use it in one thread (the GL context belongs to it).

    It keeps its own simulation data, so the arm may step on in another thread meanwhile.
    """

    def __init__(self, model: Any) -> None:
        """Create one off-screen buffer per camera.

        Args:
            model: The arm's ``mujoco.MjModel``.
        """
        import mujoco  # noqa: PLC0415  (after use_headless_gl)

        self._mujoco = mujoco
        self._model = model
        self._data = mujoco.MjData(model)
        model.vis.quality.offsamples = 0
        self._renderers: dict[str, Any] = {}
        for camera, size in CAMERA_SIZES_PX.items():
            renderer = mujoco.Renderer(model, size, size)
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
            self._renderers[camera] = renderer
        self._views: dict[str, Any] = {
            'corner': self._free_camera(_FreeCamera()),
            'gripper': 'gripperPOV',
        }

    def render(self, snapshot: SceneSnapshot, camera: str) -> UInt8Array:
        """Render one camera.

        Args:
            snapshot: State to show, from ``SimulatedArm.snapshot``.
            camera: Name in ``CAMERA_SIZES_PX``.

        Returns:
            uint8 [H, W, 3] RGB.
        """
        self._data.qpos[:] = snapshot.qpos
        self._data.mocap_pos[:] = snapshot.mocap_pos
        self._data.mocap_quat[:] = snapshot.mocap_quat
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_comPos(self._model, self._data)
        self._mujoco.mj_camlight(self._model, self._data)
        renderer = self._renderers[camera]
        renderer.update_scene(self._data, self._views[camera])
        return np.ascontiguousarray(renderer.render())

    def close(self) -> None:
        """Free the GL contexts."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _free_camera(self, view: _FreeCamera) -> Any:
        camera = self._mujoco.MjvCamera()
        camera.type = self._mujoco.mjtCamera.mjCAMERA_FREE
        camera.azimuth, camera.elevation = view.azimuth_deg, view.elevation_deg
        camera.distance = view.distance_m
        camera.lookat[:] = view.lookat_m
        return camera
