"""A robot that fits the bundled policy: its inputs, and an arm that goes where the twists say."""

from __future__ import annotations

import array
import threading
import time

import numpy as np
from arm_motion import IntegratedPosition
from command_rules import CommandRecorder
from geometry_msgs.msg import PoseStamped, TwistStamped
from node_bench import BEST_EFFORT, RELIABLE, Robot, header, values_of
from sensor_msgs.msg import Image, JointState

NAMESPACE = '/soak'
NODE = f'{NAMESPACE}/pruned_policy'
CAMERA_SIZES_PX = {'agentview': 256, 'wrist': 256}
JOINTS, OPEN_M = ['panda_finger_joint1', 'panda_finger_joint2'], [0.04, -0.04]
START_M = (-0.2, 0.0, 1.17)
FEED_PERIOD_S = 0.05
SCENES = 16


class SoakRobot(Robot):
    """Feeds 20 pictures per second and camera.

    Attributes:
        recorder: Every command of the node, by the time of sending.
        speed_m_s: Largest commanded speed since ``new_speed``.
    """

    def __init__(self, recorder: CommandRecorder, seed: int) -> None:
        self.recorder = recorder
        self.speed_m_s = 0.0
        self._arm = IntegratedPosition(START_M, recorder.rules.hold_s)
        self._arm_lock = threading.Lock()
        self._fed = 0
        random = np.random.default_rng(seed)
        self._scenes = {name: scenes(size, random) for name, size in CAMERA_SIZES_PX.items()}
        super().__init__(NODE)
        for publisher in self.images.values():
            self.node.destroy_publisher(publisher)
        self.images = {
            camera: self.node.create_publisher(
                Image, f'{NAMESPACE}/{camera}/image_raw', BEST_EFFORT
            )
            for camera in CAMERA_SIZES_PX
        }
        self.node.create_subscription(TwistStamped, f'{NODE}/ee_twist', self._move, RELIABLE)

    def new_speed(self) -> float:
        """Return the largest commanded speed since the last call, m/s."""
        speed_m_s, self.speed_m_s = self.speed_m_s, 0.0
        return speed_m_s

    def carry_back(self) -> None:
        """Put the arm where it began; nothing commands it."""
        with self._arm_lock:
            self._arm = IntegratedPosition(START_M, self.recorder.rules.hold_s)

    def keep_last(self) -> None:
        """Forget all but the last message of each topic."""
        with self.changed:
            for messages in self.heard.values():
                del messages[:-1]

    def last_values(self, task: str) -> dict[str, str]:
        """Return the values of a diagnostic task as they were last told; empty when never."""
        for message in reversed(self.heard['diagnostics']):
            for status in message.status:
                if status.name == f'{NODE}: {task}':
                    return values_of(status)
        return {}

    def feed(self) -> None:
        """Send one complete observation but for what is silent."""
        stamp = self.node.get_clock().now().to_msg()
        self._fed += 1
        for camera, publisher in self.images.items():
            if camera not in self.silent:
                size = CAMERA_SIZES_PX[camera]
                message = Image(height=size, width=size, step=3 * size, encoding='rgb8')
                message.data = self._scenes[camera][self._fed % SCENES]
                publisher.publish(header(message, stamp, f'{camera}_optical_frame'))
        if 'pose' not in self.silent:
            self.pose.publish(self._pose_message(stamp))
        if 'joints' not in self.silent:
            self.joints.publish(header(JointState(name=JOINTS, position=OPEN_M), stamp, ''))

    def start_feeding(self) -> None:
        """Feed in a thread."""
        self._end_feeding = self.every(FEED_PERIOD_S, self.feed)

    def _pose_message(self, stamp: object) -> PoseStamped:
        with self._arm_lock:
            position_m = self._arm.at(time.monotonic())
        message = PoseStamped()
        point = message.pose.position
        point.x, point.y, point.z = position_m
        message.pose.orientation.x, message.pose.orientation.w = 1.0, 0.0  # the hand points down
        return header(message, stamp, 'world')

    def _move(self, message: TwistStamped, info: dict[str, int]) -> None:
        self.recorder.take(message, info['source_timestamp'] * 1e-9)
        linear = self.recorder.heard[-1].linear
        with self._arm_lock:
            self._arm.take(linear, time.monotonic())
        self.speed_m_s = max(self.speed_m_s, float(np.linalg.norm(linear)))


def scenes(size: int, random: np.random.Generator) -> list[array.array]:
    """Return pictures of a block that wanders over a smooth ground, as message data."""
    ground = np.linspace(40, 200, size)[:, None, None] * random.uniform(0.3, 1.0, (1, size, 3))
    pictures = []
    for _ in range(SCENES):
        picture = ground.astype(np.uint8)
        row, column = random.integers(0, size - size // 5, 2)
        picture[row : row + size // 5, column : column + size // 5] = random.integers(0, 256, 3)
        pictures.append(array.array('B', picture.tobytes()))
    return pictures
