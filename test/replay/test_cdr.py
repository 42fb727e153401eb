from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.replay.cdr import read_message
from safe_vla_ros.replay.errors import MessageError
from safe_vla_ros.replay.topic_routes import COMPRESSED, IMAGE, TYPES
from safe_vla_ros.runtime.message_reading import (
    read_header,
    read_image,
    read_joints,
    read_pose,
    read_twist,
)
from safe_vla_ros.types import MessageHeader

STORE = get_typestore(Stores.ROS2_JAZZY)
T = STORE.types
MSGTYPES = (IMAGE, COMPRESSED, *TYPES.values())
HUGE = b'\xff\xff\xff\xff'


def a_header(frame='camera', sec=1_700_000_000, nanosec=123_456_789):
    return T['std_msgs/msg/Header'](
        stamp=T['builtin_interfaces/msg/Time'](sec=sec, nanosec=nanosec), frame_id=frame
    )


def an_image(frame='camera'):
    return T['sensor_msgs/msg/Image'](
        header=a_header(frame),
        height=2,
        width=3,
        encoding='rgb8',
        is_bigendian=1,
        step=9,
        data=np.arange(18, dtype=np.uint8),
    )


def a_compressed_image():
    data = np.frombuffer(b'\xff\xd8\xffabc', np.uint8)
    return T['sensor_msgs/msg/CompressedImage'](header=a_header(), format='jpeg', data=data)


def a_pose():
    return T['geometry_msgs/msg/PoseStamped'](
        header=a_header(),
        pose=T['geometry_msgs/msg/Pose'](
            position=T['geometry_msgs/msg/Point'](1.0, 2.0, 3.0),
            orientation=T['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.6, 0.8),
        ),
    )


def a_twist():
    vector = T['geometry_msgs/msg/Vector3']
    return T['geometry_msgs/msg/TwistStamped'](
        header=a_header(),
        twist=T['geometry_msgs/msg/Twist'](
            linear=vector(1.0, 2.0, 3.0), angular=vector(4.0, 5.0, 6.0)
        ),
    )


def a_joint_state(names=('left', 'right'), positions=(0.1, 0.2), frame='camera'):
    return T['sensor_msgs/msg/JointState'](
        header=a_header(frame),
        name=list(names),
        position=np.array(positions, np.float64),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )


def an_episode():
    status = T['diagnostic_msgs/msg/DiagnosticStatus'](
        level=0, name='episode', message='started', hardware_id='', values=[]
    )
    return T['diagnostic_msgs/msg/DiagnosticArray'](header=a_header(), status=[status])


EXAMPLES = {
    message.__msgtype__: message
    for message in (
        an_image(),
        a_compressed_image(),
        a_pose(),
        a_twist(),
        a_joint_state(),
        an_episode(),
        T['std_msgs/msg/String']('öffne'),
        T['std_msgs/msg/Float64'](0.25),
    )
}


def serialise(message, little_endian=True):
    return bytes(STORE.serialize_cdr(message, message.__msgtype__, little_endian=little_endian))


def read_back(msgtype, little_endian):
    return read_message(msgtype, serialise(EXAMPLES[msgtype], little_endian))


def test_there_is_an_example_of_every_type_that_replay_reads():
    assert EXAMPLES.keys() == set(MSGTYPES)


@pytest.mark.parametrize('little_endian', [True, False])
@pytest.mark.parametrize('frame', ['', 'c', 'camera', 'a_longer_frame'])
def test_image_fields_survive_any_alignment(little_endian, frame):
    message = read_message(IMAGE, serialise(an_image(frame), little_endian))
    assert read_header(message) == MessageHeader(1_700_000_000_123_456_789, frame)
    image = read_image(message)
    assert (image.height, image.width, image.step) == (2, 3, 9)
    assert (image.encoding, image.is_bigendian) == ('rgb8', True)
    assert bytes(image.data) == bytes(range(18))


@pytest.mark.parametrize('msgtype', [IMAGE, COMPRESSED])
def test_image_data_is_a_view_of_the_message(msgtype):
    raw = serialise(EXAMPLES[msgtype])
    image = read_image(read_message(msgtype, raw))
    assert np.shares_memory(image.data, np.frombuffer(raw, np.uint8))


@pytest.mark.parametrize('little_endian', [True, False])
def test_every_type_is_read_in_both_byte_orders(little_endian):
    compressed = read_image(read_back(COMPRESSED, little_endian))
    assert (compressed.format, bytes(compressed.data)) == ('jpeg', b'\xff\xd8\xffabc')
    position, quaternion = read_pose(read_back(TYPES['ee_pose'], little_endian))
    assert (position.tolist(), quaternion.tolist()) == ([1, 2, 3], [0, 0, 0.6, 0.8])
    linear, angular = read_twist(read_back(TYPES['recorded_twist'], little_endian))
    assert (linear.tolist(), angular.tolist()) == ([1, 2, 3], [4, 5, 6])
    names, positions = read_joints(read_back(TYPES['joint_states'], little_endian))
    assert (list(names), list(positions)) == (['left', 'right'], [0.1, 0.2])
    assert read_back(TYPES['episode'], little_endian).status[0].message == 'started'
    assert read_back(TYPES['instruction'], little_endian).data == 'öffne'
    assert read_back(TYPES['recorded_gripper'], little_endian).data == 0.25


@given(
    names=st.lists(st.text(max_size=12), max_size=5),
    frame=st.text(max_size=9),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_joint_states_of_any_names(names, frame, data):
    positions = data.draw(st.lists(st.floats(allow_nan=False), max_size=5))
    raw = serialise(a_joint_state(names, positions, frame))
    message = read_message(TYPES['joint_states'], raw)
    got_names, got_positions = read_joints(message)
    assert (list(got_names), list(got_positions)) == (names, positions)
    assert read_header(message).frame_id == frame


@pytest.mark.parametrize('msgtype', MSGTYPES)
@given(raw=st.binary(max_size=80))
@settings(max_examples=40, deadline=None)
def test_garbage_is_refused_or_read_but_never_crashes(msgtype, raw):
    for body in (raw, b'\0\1\0\0' + raw):
        with suppress(MessageError):
            read_message(msgtype, body)


@pytest.mark.parametrize('msgtype', MSGTYPES)
def test_a_cut_message_is_refused_in_a_sentence(msgtype):
    raw = serialise(EXAMPLES[msgtype])
    for end in range(len(raw)):
        with pytest.raises(MessageError, match=rf'^not a (CDR message|{msgtype}): .'):
            read_message(msgtype, raw[:end])


@pytest.mark.parametrize('msgtype', MSGTYPES)
def test_bytes_behind_a_message_are_ignored(msgtype):
    # Fast DDS leaves eight behind a JointState without efforts.
    raw = serialise(EXAMPLES[msgtype])
    with_rest = read_message(msgtype, raw + b'\x7f' * 8)
    assert serialise(with_rest) == raw


@pytest.mark.parametrize('msgtype', MSGTYPES)
def test_a_length_that_no_message_has_is_refused_at_once(msgtype):
    raw = serialise(EXAMPLES[msgtype])
    for at in range(4, len(raw) - 3, 4):
        with suppress(MessageError):
            read_message(msgtype, raw[:at] + HUGE + raw[at + 4 :])
