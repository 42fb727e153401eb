from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.replay.cdr import READERS, read_message
from safe_vla_ros.replay.errors import MessageError
from safe_vla_ros.types import MessageHeader

STORE = get_typestore(Stores.ROS2_JAZZY)
T = STORE.types


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
        is_bigendian=0,
        step=9,
        data=np.arange(18, dtype=np.uint8),
    )


def a_joint_state(names, positions):
    return T['sensor_msgs/msg/JointState'](
        header=a_header(),
        name=list(names),
        position=np.array(positions, np.float64),
        velocity=np.zeros(0),
        effort=np.zeros(0),
    )


def serialise(message, little_endian=True):
    return bytes(STORE.serialize_cdr(message, message.__msgtype__, little_endian=little_endian))


@pytest.mark.parametrize('little_endian', [True, False])
@pytest.mark.parametrize('frame', ['', 'c', 'camera', 'a_longer_frame'])
def test_image_fields_survive_any_alignment(little_endian, frame):
    message = an_image(frame)
    read = read_message('sensor_msgs/msg/Image', serialise(message, little_endian))
    assert read.header == MessageHeader(1_700_000_000_123_456_789, frame)
    image = read.value
    assert (image.height, image.width, image.step) == (2, 3, 9)
    assert image.encoding == 'rgb8'
    assert bytes(image.data) == bytes(range(18))


def test_image_data_is_a_view_of_the_message():
    raw = serialise(an_image())
    read = read_message('sensor_msgs/msg/Image', raw)
    assert isinstance(read.value.data, memoryview)
    assert read.value.data.obj is raw


def test_compressed_image_pose_twist_string_and_number():
    header = a_header()
    compressed = T['sensor_msgs/msg/CompressedImage'](
        header=header, format='jpeg', data=np.frombuffer(b'\xff\xd8\xffabc', np.uint8)
    )
    read = read_message(compressed.__msgtype__, serialise(compressed))
    assert read.value.format == 'jpeg'
    assert bytes(read.value.data) == b'\xff\xd8\xffabc'

    pose = T['geometry_msgs/msg/PoseStamped'](
        header=header,
        pose=T['geometry_msgs/msg/Pose'](
            position=T['geometry_msgs/msg/Point'](1.0, 2.0, 3.0),
            orientation=T['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.6, 0.8),
        ),
    )
    read = read_message(pose.__msgtype__, serialise(pose))
    assert read.value.position == (1.0, 2.0, 3.0)
    assert read.value.quaternion_xyzw == (0.0, 0.0, 0.6, 0.8)

    vector = T['geometry_msgs/msg/Vector3']
    twist = T['geometry_msgs/msg/TwistStamped'](
        header=header,
        twist=T['geometry_msgs/msg/Twist'](
            linear=vector(1.0, 2.0, 3.0), angular=vector(4.0, 5.0, 6.0)
        ),
    )
    read = read_message(twist.__msgtype__, serialise(twist))
    assert read.value.linear_m_s == (1.0, 2.0, 3.0)
    assert read.value.angular_rad_s == (4.0, 5.0, 6.0)

    assert read_message('std_msgs/msg/String', serialise(T['std_msgs/msg/String']('öffne'))) == (
        'öffne'
    )
    assert read_message('std_msgs/msg/Float64', serialise(T['std_msgs/msg/Float64'](0.25))) == 0.25


@given(
    names=st.lists(st.text(max_size=12), max_size=5),
    frame=st.text(max_size=9),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_joint_states_of_any_names(names, frame, data):
    names = [name.replace('\0', '') for name in names]
    positions = data.draw(
        st.lists(st.floats(allow_nan=False), min_size=len(names), max_size=len(names))
    )
    read = read_message('sensor_msgs/msg/JointState', serialise(a_joint_state(names, positions)))
    assert read.value.names == tuple(names)
    assert read.value.positions == tuple(positions)


@pytest.mark.parametrize('msgtype', READERS)
@given(raw=st.binary(max_size=80))
@settings(max_examples=40, deadline=None)
def test_garbage_is_refused_or_read_but_never_crashes(msgtype, raw):
    for body in (raw, b'\0\1\0\0' + raw):
        with suppress(MessageError):
            read_message(msgtype, body)


@pytest.mark.parametrize('cut', [3, 10, 20, 40, 60])
def test_a_cut_image_is_refused(cut):
    with pytest.raises(MessageError):
        read_message('sensor_msgs/msg/Image', serialise(an_image())[:-cut])
