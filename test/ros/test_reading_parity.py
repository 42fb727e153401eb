"""The node and the replay make the same of every message, good or bad."""

from __future__ import annotations

import array
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message
from rosbags.typesys import Stores, get_typestore
from runtime_fakes import FakePolicy, control
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header

from safe_vla_ros.replay.bag_player import BagPlayer
from safe_vla_ros.replay.bags import BagMessage
from safe_vla_ros.replay.cdr import read_message
from safe_vla_ros.replay.section_timer import SectionTimer
from safe_vla_ros.replay.topic_routes import Route, Routes
from safe_vla_ros.ros.subscriptions import JOINT_STATES_DEPTH, Subscriptions
from safe_vla_ros.runtime import ManualClock, PolicyRuntime
from safe_vla_ros.types import MessageHeader, PruningSettings

STORE = get_typestore(Stores.ROS2_JAZZY)
NOW = Time(sec=1_700_000_000, nanosec=123_456_789)
NOW_S = NOW.sec + NOW.nanosec * 1e-9
PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
LAYOUT = ('ee_position', 'ee_quaternion', 'gripper_joints')
TYPES = {
    Image: 'sensor_msgs/msg/Image',
    CompressedImage: 'sensor_msgs/msg/CompressedImage',
    PoseStamped: 'geometry_msgs/msg/PoseStamped',
    JointState: 'sensor_msgs/msg/JointState',
}
TOPICS = {
    'sensor_msgs/msg/Image': ('image', 'front/image_raw'),
    'sensor_msgs/msg/CompressedImage': ('image', 'front/image_raw/compressed'),
    'geometry_msgs/msg/PoseStamped': ('ee_pose', 'ee_pose'),
    'sensor_msgs/msg/JointState': ('joint_states', 'joint_states'),
}


def header(frame_id='base_link', sec=NOW.sec, nanosec=NOW.nanosec):
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def image(**changes):
    message = Image(header=header('front_optical'), height=4, width=6, step=18, encoding='rgb8')
    message.data = array.array('B', PIXELS.tobytes())
    return changed(message, changes)


def jpeg(data=b'', **changes):
    message = CompressedImage(header=header('front_optical'), format='jpeg')
    message.data = array.array('B', data)
    return changed(message, changes)


def pose(x=0.4, w=1.0, **changes):
    message = PoseStamped(header=header())
    message.pose.position.x, message.pose.orientation.w = x, w
    return changed(message, changes)


def joints(names=('left', 'right'), positions=(0.01, 0.02), **changes):
    message = JointState(header=header(''), name=list(names))
    message.position, message.velocity = list(positions), [0.0] * len(names)
    return changed(message, changes)


def changed(message, changes):
    for name, value in changes.items():
        setattr(message, name, value)
    return message


GOOD = (pose(), joints(), image())
FINE = ''
"""Reason of a runtime that stands still only because its chunk has not come yet."""

CASES = {
    'good': (GOOD, FINE),
    'big-endian flag of 8-bit pixels': ((*GOOD, image(is_bigendian=1)), FINE),
    'bgr8': ((*GOOD, image(encoding='bgr8')), FINE),
    'unknown encoding': ((*GOOD, image(encoding='16UC1')), "encoding '16UC1'"),
    'rows too short': ((*GOOD, image(step=7)), 'step 7'),
    'too few bytes': ((*GOOD, image(height=5)), 'bytes of data'),
    'jpeg without data': ((pose(), joints(), jpeg()), 'neither as JPEG nor as PNG'),
    'zero stamp of an image': ((*GOOD, image(header=header('', 0, 0))), 'has a zero stamp'),
    'zero stamp of a pose': ((*GOOD, pose(header=header('base_link', 0, 0))), 'has a zero stamp'),
    'zero stamp of joints': ((*GOOD, joints(header=header('', 0, 0))), "'left' has a zero stamp"),
    'old image': ((*GOOD, image(header=header('', NOW.sec - 9))), 'has a stamp older than'),
    'image of the future': ((*GOOD, image(header=header('', NOW.sec + 9))), 'in the future'),
    'negative stamp': ((*GOOD, image(header=header('', -5))), 'has a zero stamp'),
    'frame of the pose': ((*GOOD, pose(header=header('tool0'))), "ee_pose is in frame 'tool0'"),
    'no frame of the pose': ((*GOOD, pose(header=header(''))), "ee_pose is in frame ''"),
    'pose not a number': ((*GOOD, pose(x=math.nan)), 'ee_pose holds a value that is not finite'),
    'quaternion of zeros': ((*GOOD, pose(w=0.0)), 'quaternion of length 0'),
    'joint not a number': ((*GOOD, joints(positions=(0.1, math.nan))), "joint 'right' that is not"),
    'joint infinite': ((*GOOD, joints(positions=(math.inf, 0.1))), "joint 'left' that is not"),
    'fewer positions than names': (
        (*GOOD, joints(positions=[0.1])),
        "joint 'left' has 2 names and 1 positions; each name needs one",
    ),
    'more positions than names': (
        (*GOOD, joints(['right'], [0.1, 0.2])),
        "joint 'right' has 1 names and 2 positions; each name needs one",
    ),
    'malformed joints of somebody else': ((*GOOD, joints(['a', 'b'], [0.1])), FINE),
    'positions without names': ((*GOOD, joints([], [0.1])), FINE),
    'no positions': ((*GOOD, joints(positions=())), FINE),
    'nothing at all': ((*GOOD, joints([], [])), FINE),
    'no positions ever': (
        (pose(), joints(positions=()), image()),
        "no joint_states with joint 'left' yet",
    ),
    'mended': ((*GOOD, joints(positions=[0.1]), joints(['left'], [0.3]), joints()), FINE),
    'mended in part': (
        (*GOOD, joints(positions=[0.1]), joints(['left'], [0.3])),
        "joint 'right' has 2 names and 1 positions",
    ),
    'two publishers': ((pose(), joints(['left'], [1]), joints(['right'], [2]), image()), FINE),
    'one of two publishers': (
        (pose(), joints(['left', 'elbow'], [1, 9]), image()),
        "no joint_states with joint 'right' yet",
    ),
}


def make_runtime(clock):
    runtime = PolicyRuntime(
        policy=FakePolicy(),
        cameras=('front',),
        proprio_layout=LAYOUT,
        gripper_joint_names=('left', 'right'),
        control=control(),
        pruning=PruningSettings(method='none'),
        clock=clock,
        initial_instruction='reach',
    )
    runtime.activate()
    return runtime


class CaughtTopics:
    """Keeps what would be subscribed."""

    def __init__(self):
        self.callbacks, self.depths = {}, {}

    def subscribe(self, _kind, topic, callback, qos, _events):
        self.callbacks[topic], self.depths[topic] = callback, qos.depth


def subscribe(runtime, transport='raw'):
    topics = CaughtTopics()
    Subscriptions(
        SimpleNamespace(resolve_topic_name=str),
        topics,
        runtime,
        cameras=('front',),
        image_transport=transport,
        ee_frame='',
        command_frame='base_link',
        rate_hz=50.0,
        on_image=lambda: None,
    )
    return topics


def live(messages):
    """Return what a runtime makes of messages that the node's callbacks get."""
    runtime = make_runtime(ManualClock(NOW_S))
    compressed = any(isinstance(message, CompressedImage) for message in messages)
    topics = subscribe(runtime, 'compressed' if compressed else 'raw')
    for message in messages:
        topics.callbacks[TOPICS[TYPES[type(message)]][1]](message)
    return seen(runtime)


def replayed(messages, little_endian):
    """Return what a runtime makes of messages that a bag holds."""
    clock = ManualClock(NOW_S)
    runtime = make_runtime(clock)
    run = SimpleNamespace(runtime=runtime, due_s=None, tick=ignore, wake=ignore)
    routes = {
        topic: Route(part, 'front', topic, msgtype, 1) for msgtype, (part, topic) in TOPICS.items()
    }
    stopwatch = SectionTimer()
    player = BagPlayer(
        Routes(routes, ()), clock, [run], period_s=0.02, time_source='log', stopwatch=stopwatch
    )
    player.play([in_a_bag(m, little_endian) for m in messages], lambda _time_s: True)
    assert not {name for name in player.skipped if 'goes back' not in name}
    return seen(runtime)


def ignore(_now_s):
    pass


def in_a_bag(message, little_endian):
    msgtype = TYPES[type(message)]
    raw = serialize_message(message)
    if not little_endian:
        content = read_message(msgtype, raw)
        raw = bytes(STORE.serialize_cdr(content, msgtype, little_endian=False))
    return BagMessage(TOPICS[msgtype][1], msgtype, NOW_S, raw)


def seen(runtime):
    """Return a runtime's state, what it counted, and the inference that it begins, as text."""
    runtime.tick()
    job = runtime.begin_inference()
    made = None
    if job is not None:
        outcome = runtime.run_inference(job)
        observation = outcome.observation
        made = (job.header, outcome.error, observation and observation.image_headers)
        if observation is not None:
            made += (observation.images['front'].tolist(), observation.proprio.tolist())
    statistics = runtime.statistics()
    counts = (statistics.images_received, statistics.ages_s, Counter(statistics.halts))
    return SimpleNamespace(state=runtime.state, made=made, counts=counts)


@pytest.mark.parametrize('little_endian', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_node_and_replay_make_the_same_of(case, little_endian):
    messages, reason = CASES[case]
    node, replay = live(messages), replayed(messages, little_endian)
    assert repr(node) == repr(replay)
    if reason == FINE:
        assert not node.made[1]
        assert node.made[0] == MessageHeader(1_700_000_000_123_456_789, 'front_optical')
    elif node.made is not None:
        assert reason in node.made[1]
    else:
        assert reason in node.state.reason


def test_joint_states_of_several_publishers_find_room():
    depths = subscribe(make_runtime(ManualClock(NOW_S))).depths
    assert depths['joint_states'] == JOINT_STATES_DEPTH >= 20
    assert {depths[topic] for topic in ('front/image_raw', 'ee_pose', 'instruction')} == {1}
