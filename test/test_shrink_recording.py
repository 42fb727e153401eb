"""The program that makes a recording small enough to be committed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from safe_vla_ros.runtime.image_decoding import decode_image
from safe_vla_ros.runtime.message_reading import read_image


@pytest.fixture
def tool():
    path = Path(__file__).resolve().parents[1] / 'tools' / 'shrink_recording.py'
    spec = importlib.util.spec_from_file_location('shrink_recording', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_bag(store, path, images, encoding='rgb8'):
    types = store.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection('/front/image_raw', 'sensor_msgs/msg/Image', typestore=store)
        words = writer.add_connection('/instruction', 'std_msgs/msg/String', typestore=store)
        said = types['std_msgs/msg/String'](data='go')
        writer.write(words, 5, store.serialize_cdr(said, 'std_msgs/msg/String'))
        for number, image in enumerate(images):
            stamp = types['builtin_interfaces/msg/Time'](sec=number, nanosec=7)
            header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='front')
            height, width, _ = image.shape
            message = types['sensor_msgs/msg/Image'](
                header, height, width, encoding, 0, 3 * width, image.reshape(-1)
            )
            data = store.serialize_cdr(message, 'sensor_msgs/msg/Image')
            writer.write(camera, 10 + number, data)


def test_images_become_jpeg_at_a_lower_rate_and_the_rest_stays(tool, tmp_path):
    colours = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
    images = [np.broadcast_to(colour, (16, 24, 3)).copy() for colour in colours]
    write_bag(tool.STORE, tmp_path / 'raw', images)
    tool.shrink(tmp_path / 'raw', tmp_path / 'small', quality=90, every=2)
    with AnyReader([tmp_path / 'small']) as reader:
        found = [
            (connection.topic, stamp_ns, reader.deserialize(data, connection.msgtype))
            for connection, stamp_ns, data in reader.messages()
        ]
    assert [(topic, stamp_ns) for topic, stamp_ns, _ in found] == [
        ('/instruction', 5),
        ('/front/image_raw/compressed', 10),
        ('/front/image_raw/compressed', 12),
    ]
    assert found[0][2].data == 'go'
    for number, (_, _, message) in zip((0, 2), found[1:], strict=True):
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (number, 7)
        picture = decode_image(read_image(message))
        np.testing.assert_allclose(picture.astype(int), images[number], atol=6)


def test_other_encodings_are_refused_by_name(tool, tmp_path):
    write_bag(tool.STORE, tmp_path / 'raw', [np.zeros((4, 4, 3), np.uint8)], 'bgr8')
    with pytest.raises(SystemExit, match='images must be rgb8, got bgr8'):
        tool.shrink(tmp_path / 'raw', tmp_path / 'small', quality=90, every=1)
