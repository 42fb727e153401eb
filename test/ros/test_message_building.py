"""Plain values survive the way through ROS message_building."""

from __future__ import annotations

import array

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from safe_vla_ros.ros import message_building
from safe_vla_ros.ros.policy_source import number_of_threads
from safe_vla_ros.runtime import Pose
from safe_vla_ros.runtime.image_decoding import decode_image
from safe_vla_ros.runtime.message_reading import read_header, read_image

HEADER = Header(stamp=Time(sec=7, nanosec=5), frame_id='camera')


@given(st.integers(0, 2**31 - 1), st.integers(0, 999_999_999))
def test_stamp_survives_to_a_microsecond(sec, nanosec):
    back = message_building.time_message(message_building.seconds(Time(sec=sec, nanosec=nanosec)))
    assert abs((back.sec - sec) * 10**9 + back.nanosec - nanosec) < 1000


@given(st.integers(0, 2**31 - 1), st.integers(0, 999_999_999), st.sampled_from(['', 'camera']))
def test_header_survives_exactly(sec, nanosec, frame_id):
    header = Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)
    value = read_header(Image(header=header))
    assert message_building.header_message(value) == header
    assert value.stamp_s == pytest.approx(sec + nanosec * 1e-9, rel=1e-15)


def test_image_survives():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = message_building.image_message(pixels, HEADER)
    assert (message.encoding, message.step, message.header) == ('rgb8', 12, HEADER)
    assert isinstance(message.data, array.array)
    assert (decode_image(read_image(message)) == pixels).all()


def test_compressed_image_is_handed_on_undecoded():
    message = CompressedImage(format='jpeg', data=array.array('B', b'abc'))
    undecoded = read_image(message)
    assert (undecoded.format, bytes(undecoded.data)) == ('jpeg', b'abc')


def test_path_holds_poses_in_the_frame():
    pose = Pose(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.0, 0.0, 1.0]))
    path = message_building.path_message([pose, pose], HEADER.stamp, 'base_link')
    assert [p.header.frame_id for p in path.poses] == ['base_link'] * 2
    assert path.poses[1].pose.position.z == 3.0
    assert path.poses[1].pose.orientation.w == 1.0


@pytest.mark.parametrize('level', [0, 1, 2])
def test_level_of_a_status_is_a_byte(level):
    status = message_building.status_message('node: task', level, 'fine', 'arm', {'key': 'value'})
    assert status.level == bytes([level])
    assert (status.values[0].key, status.values[0].value) == ('key', 'value')


def test_a_core_is_left_to_the_control_loop():
    assert number_of_threads(3) == 3
    assert 1 <= number_of_threads(0) <= 4
