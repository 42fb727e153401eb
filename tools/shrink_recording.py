"""Make a small recording of a recording: raw images become JPEG, at a lower rate."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
RAW, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'


def as_jpeg(data: bytes, quality: int) -> bytes:
    """Turn a serialised ``rgb8`` image into a serialised JPEG with the same header."""
    image: Any = STORE.deserialize_cdr(data, RAW)
    if image.encoding != 'rgb8':
        sys.exit(f'error: images must be rgb8, got {image.encoding}')
    pixels = image.data.reshape(image.height, image.step)[:, : 3 * image.width]
    rgb = pixels.reshape(image.height, image.width, 3)
    _, encoded = cv2.imencode('.jpg', rgb[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    message = STORE.types[COMPRESSED](image.header, 'jpeg', np.asarray(encoded).reshape(-1))
    return bytes(STORE.serialize_cdr(message, COMPRESSED))


def shrink(source: Path, target: Path, *, quality: int, every: int) -> None:
    """Copy all messages; of images only one in ``every``, as JPEG on ``<topic>/compressed``.

    Args:
        source: Folder of the recording.
        target: Folder to make.
        quality: Of the JPEG files, up to 100.
        every: 1 keeps every image, 2 every second one.
    """
    writer = Writer(target, version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with Reader(source) as reader, writer:
        copies: dict[int, Connection] = {}
        seen: dict[int, int] = {}
        for connection in reader.connections:
            raw = connection.msgtype == RAW
            copies[connection.id] = writer.add_connection(
                f'{connection.topic}/compressed' if raw else connection.topic,
                COMPRESSED if raw else connection.msgtype,
                typestore=STORE,
                offered_qos_profiles=connection.ext.offered_qos_profiles,  # type: ignore[union-attr]
            )
        for connection, stamp_ns, data in reader.messages():
            if connection.msgtype == RAW:
                number = seen.get(connection.id, 0)
                seen[connection.id] = number + 1
                if number % every:
                    continue
                data = as_jpeg(data, quality)  # noqa: PLW2901
            writer.write(copies[connection.id], stamp_ns, data)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help='folder of the recording')
    parser.add_argument('target', type=Path, help='folder to make')
    parser.add_argument('--quality', type=int, default=90, help='of the JPEG files (%(default)s)')
    parser.add_argument('--every', type=int, default=2, help='keep one image in N (%(default)s)')
    options = parser.parse_args()
    shrink(options.source, options.target, quality=options.quality, every=options.every)


if __name__ == '__main__':
    main()
