"""Saliency overlays, drawn and published off the control path and only for those who look."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
from sensor_msgs.msg import CompressedImage, Image

from safe_vla_ros.ros.message_building import header_message, image_message, jpeg_message
from safe_vla_ros.runtime.overlay import TokenArea, render_record

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecyclePublisher
    from rclpy.node import Node

    from safe_vla_ros.ros.policy_topics import PolicyTopics
    from safe_vla_ros.runtime import InferenceReport
    from safe_vla_ros.runtime.parameters import NodeSettings
    from safe_vla_ros.types import PolicySettings, PruningRecord, UInt8Array

JPEG_QUALITY = 90


@dataclass(frozen=True)
class _Camera:
    raw: LifecyclePublisher
    compressed: LifecyclePublisher

    @property
    def watched(self) -> bool:
        return bool(self.raw.get_subscription_count() or self.compressed.get_subscription_count())


def _advertise(topics: PolicyTopics, camera: str) -> _Camera:
    topic = f'~/saliency/{camera}/image_raw'
    return _Camera(
        topics.advertise(Image, topic), topics.advertise(CompressedImage, f'{topic}/compressed')
    )


class Overlays:
    """Draws the newest inference in a thread of its own, at a limited rate."""

    def __init__(
        self,
        node: Node,
        topics: PolicyTopics,
        settings: NodeSettings,
        policy: PolicySettings,
    ) -> None:
        """Advertise the topics; nothing is drawn before ``start``."""
        self._node = node
        self._settings = settings
        self._area = TokenArea.of(policy)
        self._cameras = {camera: _advertise(topics, camera) for camera in policy.cameras}
        self._changed = threading.Condition()
        self._newest: InferenceReport | None = None
        self._ending = False
        self._thread: threading.Thread | None = None

    def apply(self, settings: NodeSettings) -> None:
        """Change rate and opacity."""
        self._settings = settings

    def start(self) -> None:
        """Begin to draw."""
        self._ending, self._newest = False, None
        self._thread = threading.Thread(target=self._draw_newest, name='overlays', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End drawing; a picture that is being drawn is finished first."""
        if self._thread is None:
            return
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        self._thread = None

    def offer(self, report: InferenceReport) -> None:
        """Take an inference to draw, in place of one that has not been drawn yet."""
        drawable = report.observation is not None and report.record is not None
        if drawable and any(camera.watched for camera in self._cameras.values()):
            with self._changed:
                self._newest = report
                self._changed.notify()

    def _draw_newest(self) -> None:
        drawn_s = -math.inf
        while True:
            with self._changed:
                pause_s = drawn_s + 1.0 / self._settings.saliency_max_rate_hz - time.monotonic()
                if self._ending:
                    return
                if pause_s > 0.0 or self._newest is None:
                    self._changed.wait(pause_s if pause_s > 0.0 else None)
                    continue
                report, self._newest = self._newest, None
            drawn_s = time.monotonic()
            try:
                self._draw(report)
            except Exception as error:
                text = f'no overlay: {type(error).__name__}: {error}'
                self._node.get_logger().error(text, throttle_duration_sec=5.0)

    def _draw(self, report: InferenceReport) -> None:
        observation, record = report.observation, report.record
        if observation is None or record is None:
            return
        for name, camera in self._cameras.items():
            if not camera.watched or name not in record.total:
                continue
            overlay = self._render(observation.images[name], record, name, report)
            header = header_message(observation.image_headers[name])
            if camera.raw.get_subscription_count():
                camera.raw.publish(image_message(overlay, header))
            if camera.compressed.get_subscription_count():
                quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
                _, jpeg = cv2.imencode('.jpg', overlay[..., ::-1], quality)
                camera.compressed.publish(jpeg_message(jpeg.tobytes(), header))

    def _render(
        self, image: UInt8Array, record: PruningRecord, camera: str, report: InferenceReport
    ) -> UInt8Array:
        return render_record(
            image,
            record,
            camera,
            episode=report.episode,
            step=report.step,
            alpha=self._settings.saliency_alpha,
            area=self._area,
        )
