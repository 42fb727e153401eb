"""Overlays of a replay: which inferences are drawn, and the filmstrip of the key steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from safe_vla_ros.replay.overlay_bag import encode_jpeg
from safe_vla_ros.runtime.overlay import TokenArea, render_record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from safe_vla_ros.replay.method_run import Step
    from safe_vla_ros.types import UInt8Array

LONGEST_STRIP = 24
"""Frames of a filmstrip; a longer one keeps every second, then every fourth, and so on."""

STRIP_HEIGHT = 260


@dataclass(frozen=True)
class Frame:
    """One picture of a filmstrip.

    Attributes:
        file: Name of the JPEG.
        time_s: Bag time since the first message, seconds.
        episode, step: Which inference.
        reason: Why it was a key step.
        similarity: kappa, or None.
        residual: What would have stayed stale, or None.
    """

    file: str
    time_s: float
    episode: int
    step: int
    reason: str
    similarity: float | None
    residual: float | None


class Painter:
    """Draws the overlays of inferences, at most at some rate; key steps always.

    Attributes:
        drawn: Overlays drawn.
    """

    def __init__(
        self, *, max_width: int, max_rate_hz: float, alpha: float, area: TokenArea
    ) -> None:
        self.drawn = 0
        self._max_width = max_width
        self._interval_s = 1.0 / max_rate_hz
        self._alpha = alpha
        self._area = area
        self._drawn_s: dict[str, float] = {}

    def draw(self, step: Step) -> dict[str, UInt8Array]:
        """Return the overlay of each camera, uint8 RGB; empty when this one is not drawn."""
        job, outcome = step.report.job, step.report.outcome
        record, observation = outcome.record, outcome.observation
        if record is None or observation is None:
            return {}
        last_s = self._drawn_s.get(step.method)
        too_soon = last_s is not None and 0 <= step.end_s - last_s < self._interval_s - 1e-6
        if too_soon and not record.key_step:
            return {}
        self._drawn_s[step.method] = step.end_s
        self.drawn += len(observation.images)
        return {
            camera: render_record(
                self._smaller(image),
                record,
                camera,
                episode=job.episode,
                step=job.step,
                alpha=self._alpha,
                area=self._area,
            )
            for camera, image in observation.images.items()
        }

    def _smaller(self, image: UInt8Array) -> UInt8Array:
        height, width = image.shape[:2]
        if width <= self._max_width:
            return image
        size = (self._max_width, max(1, round(height * self._max_width / width)))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class Filmstrip:
    """Keeps pictures of one method's key steps as files, evenly spread when there are many."""

    def __init__(self, folder: Path, method: str) -> None:
        self._folder = folder
        self._method = method
        self._frames: list[Frame] = []
        self._seen = 0
        self._every = 1

    def add(self, step: Step, overlays: Mapping[str, UInt8Array], *, start_s: float) -> None:
        """Add a key step that was drawn, if its turn has come."""
        record = step.report.outcome.record
        if record is None or not record.key_step or not overlays:
            return
        index = self._seen
        self._seen += 1
        if index % self._every:
            return
        if len(self._frames) == LONGEST_STRIP:
            self._thin_out()
            if index % self._every:
                return
        name = f'{self._method}_{index:06d}.jpg'
        self._folder.mkdir(exist_ok=True)
        (self._folder / name).write_bytes(encode_jpeg(_side_by_side(overlays)))
        self._frames.append(
            Frame(
                name,
                step.end_s - start_s,
                step.report.job.episode,
                step.report.job.step,
                str(record.reason),
                record.similarity,
                record.residual,
            )
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return the frames that were kept."""
        return [asdict(frame) for frame in self._frames]

    def _thin_out(self) -> None:
        for frame in self._frames[1::2]:
            (self._folder / frame.file).unlink()
        self._frames = self._frames[::2]
        self._every *= 2


def _side_by_side(overlays: Mapping[str, UInt8Array]) -> UInt8Array:
    pictures = []
    for overlay in overlays.values():
        height, width = overlay.shape[:2]
        size = (max(1, round(width * STRIP_HEIGHT / height)), STRIP_HEIGHT)
        pictures.append(cv2.resize(overlay, size, interpolation=cv2.INTER_AREA))
    return np.hstack(pictures)
