"""Records topics into a rosbag2 without a ROS 2 installation's recorder."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float32, Float64, String

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from rclpy.node import Node

DEPTH = 50
_FOREVER = QosTime(2147483647, 4294967295)


def demo_topics(policy: str, robot: str, cameras: tuple[str, ...]) -> dict[str, type]:
    """Return what a recording of the demo holds: inputs and outputs of the policy node."""
    return {
        **{f'/{camera}/image_raw': Image for camera in cameras},
        '/ee_pose': PoseStamped,
        '/joint_states': JointState,
        '/instruction': String,
        f'/{policy}/ee_twist': TwistStamped,
        f'/{policy}/gripper': Float64,
        f'/{policy}/pruning_ratio': Float32,
        f'/{policy}/subtask_reset': DiagnosticArray,
        f'/{policy}/inference': DiagnosticArray,
        f'/{policy}/state': DiagnosticStatus,
        f'/{robot}/episode': DiagnosticArray,
        '/diagnostics': DiagnosticArray,
    }


LATCHED = ('/state', '/episode')
"""Endings of topics whose last message is kept for late readers."""


class BagRecorder:
    """Writes messages as they come, still serialised, stamped with the time of receipt.

    Where the system takes no more, on a full disk, the recording ends, and only the recording: the
    bag stays without ``metadata.yaml``, so that nobody takes it for whole.

    Attributes:
        messages: Messages taken so far; the last of them may not have reached the file.
        trouble: Why the recording ended early; empty while nothing is wrong.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        topics: Mapping[str, type],
        *,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        """Open an MCAP bag and subscribe.

        Args:
            node: Its clock stamps the messages, its executor calls back.
            path: Directory to make; must not exist.
            topics: Message types by absolute name.
            on_trouble: Told once why the recording ends early, beside the node's log.

        Raises:
            rosbags.rosbag2.WriterError: The directory exists.
        """
        self._node = node
        self._path = path
        self._on_trouble = on_trouble
        self._lock = threading.Lock()
        self.messages = 0
        self.trouble = ''
        writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._writer: Writer | None = writer
        try:
            writer.open()
        except OSError as error:
            self._give_up(error)
            return
        store = get_typestore(Stores.ROS2_JAZZY)
        self._subscriptions = []
        for topic, kind in topics.items():
            connection = writer.add_connection(
                topic, _type_name(kind), typestore=store, offered_qos_profiles=[_offered(topic)]
            )
            self._subscriptions.append(
                node.create_subscription(
                    kind, topic, self._writing(connection), _wanted(topic), raw=True
                )
            )

    def close(self) -> None:
        """Finish the bag."""
        with self._lock:
            if self._writer is None:
                return
            try:
                self._writer.close()
                self._writer = None
            except OSError as error:
                self._give_up(error)

    def _writing(self, connection: Any) -> Any:
        def write(data: bytes) -> None:
            now_ns = self._node.get_clock().now().nanoseconds
            with self._lock:
                if self._writer is None:
                    return
                try:
                    self._writer.write(connection, now_ns, data)
                    self.messages += 1
                except OSError as error:
                    self._give_up(error)

        return write

    def _give_up(self, error: OSError) -> None:
        """End the recording where it is, and say so."""
        writer, self._writer = self._writer, None
        if writer is not None:
            # What is still buffered cannot be written; the file is closed all the same.
            with suppress(OSError):
                writer.abort()
            with suppress(OSError):
                (self._path / 'metadata.yaml.tmp').unlink(missing_ok=True)
        self.trouble = (
            f'the recording {self._path} ended after {self.messages} messages and is not whole: '
            f'{error}'
        )
        self._node.get_logger().error(self.trouble)
        if self._on_trouble is not None:
            self._on_trouble(self.trouble)


def _type_name(kind: type) -> str:
    package, folder, *_ = kind.__module__.split('.')
    return f'{package}/{folder}/{kind.__name__}'


def _wanted(topic: str) -> QoSProfile:
    if topic.endswith(LATCHED):
        return QoSProfile(depth=DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)


def _offered(topic: str) -> Qos:
    latched = topic.endswith(LATCHED)
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )
