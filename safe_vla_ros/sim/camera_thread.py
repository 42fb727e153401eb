"""The simulated robot's cameras: renders snapshots in a thread of its own. No ROS."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, Renderer, SceneSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.sim.arm import SimulatedPanda
    from safe_vla_ros.types import UInt8Array


class CameraThread:
    """Renders the newest snapshot; physics never waits for it.

    A snapshot that arrives while an older one is rendered waits; a second one takes its place.
    """

    def __init__(self, publish: Callable[[str, UInt8Array, float], None]) -> None:
        """Prepare a thread.

        Args:
            publish: Called in the camera thread with camera, uint8 [H, W, 3] RGB, capture time (s).
        """
        self._publish = publish
        self._condition = threading.Condition()
        self._arm: SimulatedPanda | None = None
        self._shown: SimulatedPanda | None = None
        self._snapshot: tuple[SimulatedPanda, SceneSnapshot, float] | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name='cameras', daemon=True)
        self.captures = 0
        self.dropped = 0
        self.last_render_ms = 0.0
        self.error: Exception | None = None

    def start(self) -> None:
        """Start the thread; the GL context belongs to it."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Free the GL context and end the thread.

        Args:
            timeout_s: How long to wait for it.

        Returns:
            Whether it has ended.
        """
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def prepare(self, arm: SimulatedPanda, *, timeout_s: float = 120.0) -> bool:
        """Make ready for another arm's scene, so that its first picture is as quick as others.

        Returns:
            Whether the thread is ready within the timeout; False also when rendering has failed.
        """
        with self._condition:
            self._arm = arm
            self._condition.notify_all()
            return self._condition.wait_for(
                lambda: self._shown is arm or self.error is not None, timeout_s
            ) and (self.error is None)

    def capture(self, arm: SimulatedPanda, stamp_s: float) -> None:
        """Take a snapshot now, in the physics thread; it is rendered when the thread is free."""
        snapshot = arm.snapshot()
        with self._condition:
            self.dropped += self._snapshot is not None
            self._snapshot = (arm, snapshot, stamp_s)
            self._condition.notify_all()

    def _run(self) -> None:
        renderer: Renderer | None = None
        try:
            while True:
                with self._condition:
                    self._condition.wait_for(
                        lambda: self._stopping or self._snapshot or self._arm is not self._shown
                    )
                    if self._stopping:
                        return
                    arm, job = self._arm, self._snapshot
                    self._snapshot = None
                if arm is not None and arm is not self._shown:
                    if renderer is not None:
                        renderer.close()
                    renderer = Renderer(arm.model)
                    for camera in CAMERA_SIZES_PX:
                        renderer.render(arm.snapshot(), camera)
                    with self._condition:
                        self._shown = arm
                        self._condition.notify_all()
                if job is not None and renderer is not None and job[0] is self._shown:
                    self._render(renderer, job[1], job[2])
        except Exception as error:
            with self._condition:
                self.error = error
                self._condition.notify_all()
        finally:
            if renderer is not None:
                renderer.close()

    def _render(self, renderer: Renderer, snapshot: SceneSnapshot, stamp_s: float) -> None:
        started_s = time.perf_counter()
        images = {camera: renderer.render(snapshot, camera) for camera in CAMERA_SIZES_PX}
        self.last_render_ms = (time.perf_counter() - started_s) * 1e3
        for camera, image in images.items():
            self._publish(camera, image, stamp_s)
        self.captures += 1
