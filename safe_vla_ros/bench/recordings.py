"""Generated recordings of a robot with two cameras, in several storages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.replay.overlay_bag import image_message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KINDS = ('mcap', 'sqlite3', 'zstd', 'zstd_message', 'jpeg')
"""Uncompressed MCAP and sqlite3, MCAP with compressed chunks or messages, MCAP with JPEG images."""

START_S = 1_700_000_000.0
CAMERA_HZ, STATE_HZ = 20.0, 100.0

_COMPRESSION = {'zstd': CompressionMode.STORAGE, 'zstd_message': CompressionMode.MESSAGE}


def write_recording(
    path: Path,
    kind: str,
    seconds: float,
    cameras: Sequence[str],
    *,
    size: tuple[int, int] = (480, 640),
) -> None:
    """Write a recording.

    Args:
        path: Directory to make.
        kind: One of ``KINDS``.
        seconds: Length.
        cameras: Names of the cameras, at 20 Hz; ``ee_pose`` comes at 100 Hz.
        size: Height and width of the images, pixels.
    """
    store = get_typestore(Stores.ROS2_JAZZY)
    storage = StoragePlugin.SQLITE3 if kind == 'sqlite3' else StoragePlugin.MCAP
    writer = Writer(path, version=9, storage_plugin=storage)
    if kind in _COMPRESSION:
        writer.set_compression(_COMPRESSION[kind], CompressionFormat.ZSTD)
    pictures = [_picture(index, size) for index in range(20)]
    jpegs = [cv2.imencode('.jpg', picture)[1].reshape(-1) for picture in pictures]
    messages = _Messages(store)
    with writer:
        suffix = '/compressed' if kind == 'jpeg' else ''
        image_type = 'CompressedImage' if kind == 'jpeg' else 'Image'
        images = [
            writer.add_connection(
                f'/{camera}/image_raw{suffix}', f'sensor_msgs/msg/{image_type}', typestore=store
            )
            for camera in cameras
        ]
        poses = writer.add_connection('/ee_pose', 'geometry_msgs/msg/PoseStamped', typestore=store)
        per_image = round(STATE_HZ / CAMERA_HZ)
        for index in range(round(seconds * STATE_HZ)):
            stamp_s = START_S + index / STATE_HZ
            time_ns = round(stamp_s * 1e9)
            writer.write(poses, time_ns, messages.pose(stamp_s))
            if index % per_image:
                continue
            number = index // per_image % len(pictures)
            for connection in images:
                data = (
                    messages.jpeg(stamp_s, jpegs[number])
                    if kind == 'jpeg'
                    else messages.image(stamp_s, pictures[number])
                )
                writer.write(connection, time_ns, data)


def _picture(index: int, size: tuple[int, int]) -> Any:
    """Return something as hard to compress as a camera's image: smooth, with a little noise."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
    smooth = cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)
    noise = rng.integers(-3, 4, smooth.shape)
    return np.clip(smooth.astype(int) + noise, 0, 255).astype(np.uint8)


class _Messages:
    def __init__(self, store: Any) -> None:
        self._store = store
        self._types = store.types

    def pose(self, stamp_s: float) -> bytes:
        types = self._types
        pose = types['geometry_msgs/msg/Pose'](
            position=types['geometry_msgs/msg/Point'](0.1, 0.2, 0.3),
            orientation=types['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0),
        )
        header = self._header(stamp_s, 'base_link')
        return self._write(types['geometry_msgs/msg/PoseStamped'](header=header, pose=pose))

    def image(self, stamp_s: float, picture: Any) -> bytes:
        header = self._header(stamp_s, 'camera')
        return self._write(image_message(self._types, header, picture))

    def jpeg(self, stamp_s: float, data: Any) -> bytes:
        header = self._header(stamp_s, 'camera')
        kind = self._types['sensor_msgs/msg/CompressedImage']
        return self._write(kind(header=header, format='jpeg', data=data))

    def _header(self, stamp_s: float, frame_id: str) -> Any:
        nanoseconds = round(stamp_s * 1e9)
        stamp = self._types['builtin_interfaces/msg/Time'](
            nanoseconds // 10**9, nanoseconds % 10**9
        )
        return self._types['std_msgs/msg/Header'](stamp, frame_id)

    def _write(self, message: Any) -> bytes:
        return bytes(self._store.serialize_cdr(message, message.__msgtype__))
