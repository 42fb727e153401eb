"""The replay of a recording gives the actions that the live node gave, step by step."""

import array
import json

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from node_bench import BEST_EFFORT, values_of
from node_fakes import KeptChunks
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from safe_vla_ros.replay.bag_replay import BagTask, replay_bag
from safe_vla_ros.replay.latency import LatencyModel
from safe_vla_ros.replay.replay_setup import ReplaySettings, load_setup
from safe_vla_ros.sim.arm import GRIPPER_JOINTS

SETS = 9
INSTRUCTION = 'pick up the black bowl next to the ramekin and place it on the plate'
CAMERAS = {'agentview': (48, 64), 'wrist': (32, 32)}
STORE = get_typestore(Stores.ROS2_JAZZY)
TIMED = ('latency_ms', 'observation_age_s', 'skipped_actions', 'seam_jump', 'stage_ms')
"""Beginnings of keys that depend on how fast the machine was."""


class LockStepRobot:
    """Publishes one complete observation at a time and writes it to a bag as well."""

    def __init__(self, robot, writer):
        self.robot, self.writer = robot, writer
        node, namespace = robot.node, robot.name.rpartition('/')[0]
        self.images = {
            camera: node.create_publisher(Image, f'{namespace}/{camera}/image_raw', BEST_EFFORT)
            for camera in CAMERAS
        }
        self.pose = node.create_publisher(PoseStamped, f'{namespace}/ee_pose', BEST_EFFORT)
        self.joints = node.create_publisher(JointState, f'{namespace}/joint_states', BEST_EFFORT)
        self.instruction = node.create_publisher(String, f'{namespace}/instruction', 1)
        self.connections = {}

    def send(self, publisher, message):
        topic = publisher.topic_name
        now_ns = self.robot.node.get_clock().now().nanoseconds
        if topic not in self.connections:
            package, kind = type(message).__module__.split('.')[0], type(message).__name__
            self.connections[topic] = self.writer.add_connection(
                topic, f'{package}/msg/{kind}', typestore=STORE
            )
        self.writer.write(self.connections[topic], now_ns, serialize_message(message))
        publisher.publish(message)

    def observe(self, index):
        """Send observation number ``index``; return its stamp in nanoseconds."""
        stamp = self.robot.node.get_clock().now().to_msg()
        pose = PoseStamped()
        pose.header.stamp, pose.header.frame_id = stamp, 'base_link'
        pose.pose.position.x, pose.pose.position.z = 0.01 * index - 0.2, 1.1
        pose.pose.orientation.x, pose.pose.orientation.w = 1.0, 0.0
        joints = JointState(name=list(GRIPPER_JOINTS), position=[0.04, -0.004 * index])
        joints.header.stamp = stamp
        self.send(self.pose, pose)
        self.send(self.joints, joints)
        # From the fifth on it is another scene, so that the reference has to be renewed.
        rng = np.random.default_rng(index // 4)
        for camera, (height, width) in CAMERAS.items():
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            pixels[: 4 + index] = 20 * index
            image = Image(height=height, width=width, step=3 * width, encoding='rgb8')
            image.data = array.array('B', pixels.tobytes())
            image.header.stamp = stamp
            self.send(self.images[camera], image)
        return nanoseconds(stamp)

    def begin(self, instruction):
        """Send observations until the node hears all of them, then the instruction.

        A publisher that knows its reader may not be known by it yet, and nothing is sent again.
        """
        inputs = {f'age_s/{name}' for name in (*CAMERAS, 'ee_pose', 'joint_states')}
        end = self.robot.every(0.2, lambda: self.observe(0))
        self.robot.task('inputs', lambda status: values_of(status).keys() >= inputs)
        end()
        self.robot.wait_matched(self.instruction)
        self.send(self.instruction, String(data=instruction))
        self.robot.task('inputs', lambda s: values_of(s)['instruction'] == instruction)


def run_live(start_node, values, bag):
    """Drive the node in lock-step; return chunks by seconds and ``~/inference`` by stamp."""
    policies = KeptChunks()
    overrides = {name.replace('.', '__'): value for name, value in values.items()}
    reports = {}
    with (
        start_node(policies=policies, **overrides) as bench,
        Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer,
    ):
        robot = bench.robot
        source = LockStepRobot(robot, writer)
        assert robot.transition('configure')
        policies.chunks.clear()
        assert robot.transition('activate')
        source.begin(INSTRUCTION)
        for index in range(1, SETS + 1):
            heard = len(robot.heard['inference'])
            stamp_ns = source.observe(index)
            message = robot.next(
                'inference', lambda m, ns=stamp_ns: nanoseconds(m.header.stamp) == ns, heard
            )
            reports[stamp_ns] = statuses_of(message)
        # The recording goes on for as long as the last inference took to begin.
        source.send(source.instruction, String(data=INSTRUCTION))
    return policies.chunks, reports


def nanoseconds(stamp):
    """Return a stamp as one exact number."""
    return stamp.sec * 10**9 + stamp.nanosec


def statuses_of(message):
    """Return what a DiagnosticArray says, without the node's namespace and what was timed."""
    return [
        (
            status.name.rpartition('/')[2],
            status.message,
            status.hardware_id,
            [
                (item.key, 'timed' if item.key.startswith(TIMED) else item.value)
                for item in status.values
            ],
        )
        for status in message.status
    ]


def read_reports(folder):
    """Return the values of ``~/inference`` that the replay wrote, by stamp."""
    reports = {}
    with Reader(folder) as reader:
        wanted = [c for c in reader.connections if c.topic == '/pruned_policy/inference']
        for connection, _, raw in reader.messages(wanted):
            message = STORE.deserialize_cdr(raw, connection.msgtype)
            reports[nanoseconds(message.header.stamp)] = statuses_of(message)
    return reports


def compare_with_replay(tmp_path, start_node, values):
    """Drive the node in lock-step, replay what it saw, and compare; return the replay's rows."""
    chunks, live = run_live(start_node, values, tmp_path / 'bag')
    assert len(chunks) == SETS

    # Shorter than any real latency, so that every observation is used before the next one comes.
    settings = ReplaySettings(
        values=values, methods=(values['pruning.method'],), latency=LatencyModel(0.002)
    )
    out = tmp_path / 'out'
    out.mkdir()
    result = replay_bag(BagTask(0, tmp_path / 'bag'), load_setup(settings), out, lambda *_: True)
    assert result['status'] == 'complete'
    rows = [json.loads(line) for line in (out / 'steps.jsonl').open()]

    assert [round(row['stamp_s'], 6) for row in rows] == sorted(chunks)
    for row in rows:
        chunk = chunks[round(row['stamp_s'], 6)]
        actions = np.column_stack([chunk.translation_m, chunk.rotation_rad, chunk.gripper])
        assert np.abs(np.array(row['actions']) - actions).max() < 1e-6
    replayed = read_reports(out / 'overlay')
    assert sorted(replayed) == sorted(live)
    for stamp_ns, statuses in live.items():
        assert replayed[stamp_ns] == statuses
    return rows


@pytest.mark.parametrize(
    ('method', 'limits'),
    [
        ('safe', {'pruning.refresh_threshold': 0.9}),
        ('refresh', {'pruning.max_staleness': 0.2}),
    ],
)
def test_replay_gives_the_actions_of_the_live_node(tmp_path, start_node, method, limits):
    values = {
        'policy': 'mini_libero',
        'pruning.method': method,
        'inference_threads': 1,
        **limits,
        'observation_timeout_s': 10.0,
        'starvation_grace_s': 1.0,
    }
    rows = compare_with_replay(tmp_path, start_node, values)
    # Both kinds of steps were compared.
    assert {row['key_step'] for row in rows} == {True, False}
    assert {row['reason'] for row in rows} >= {'episode_start', 'attention_shift'}
