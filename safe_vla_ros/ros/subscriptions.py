"""Subscriptions: callbacks that only store."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PoseStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header, String

from safe_vla_ros.errors import ObservationError
from safe_vla_ros.ros.message_building import seconds, undecoded_image

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

    from safe_vla_ros.ros.policy_topics import PolicyTopics
    from safe_vla_ros.runtime import PolicyRuntime

THROTTLE_S = 2.0
HEADERS_KEPT = 200


class Subscriptions:
    """Feeds the runtime from topics, and knows which publishers cannot be heard."""

    def __init__(
        self,
        node: Node,
        topics: PolicyTopics,
        runtime: PolicyRuntime,
        *,
        cameras: Sequence[str],
        image_transport: str,
        on_image: Callable[[], None],
    ) -> None:
        """Subscribe.

        Args:
            node: Logs, and knows the publishers of a topic.
            topics: Makes the subscriptions.
            runtime: Gets the messages.
            cameras: Names that prefix the image topics.
            image_transport: ``raw`` or ``compressed``.
            on_image: Called after an image was stored.
        """
        self._node = node
        self._topics = topics
        self._runtime = runtime
        self._on_new_image = on_image
        self._headers: dict[str, deque[Header]] = {
            camera: deque(maxlen=HEADERS_KEPT) for camera in cameras
        }
        self._suspects: set[str] = set()
        kind, suffix = (Image, '') if image_transport == 'raw' else (CompressedImage, '/compressed')
        for camera in cameras:
            topic = f'{camera}/image_raw{suffix}'
            self._subscribe(kind, topic, partial(self._on_image, camera))
        self._subscribe(PoseStamped, 'ee_pose', self._on_pose)
        self._subscribe(JointState, 'joint_states', self._on_joints)
        self._subscribe(String, 'instruction', self._on_instruction, reliable=True)

    def header_of(self, camera: str, stamp_s: float) -> Header:
        """Return the header of a recent image, with its stamp to the nanosecond.

        Args:
            camera: Name of the camera.
            stamp_s: Its stamp as the runtime knows it.
        """
        for header in reversed(tuple(self._headers[camera])):
            if seconds(header.stamp) == stamp_s:
                return header
        return Header()

    def incompatible_qos(self) -> dict[str, int]:
        """Return how many publishers cannot be heard for their QoS now, by topic."""
        counts: dict[str, int] = {}
        for subscription in self._topics.subscriptions:
            topic = subscription.topic_name
            if topic not in self._suspects:
                continue
            unheard = sum(
                qos_check_compatible(publisher.qos_profile, subscription.qos_profile)[0]
                == QoSCompatibility.ERROR
                for publisher in self._node.get_publishers_info_by_topic(topic)
            )
            if unheard:
                counts[topic] = unheard
        return counts

    def _subscribe(
        self, kind: Any, topic: str, callback: Callable[[Any], None], *, reliable: bool = False
    ) -> None:
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(
                self._on_incompatible_qos, self._node.resolve_topic_name(topic)
            )
        )
        qos = QoSProfile(depth=1, reliability=reliability)
        self._topics.subscribe(kind, topic, callback, qos, events)

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        self._headers[camera].append(message.header)
        stamp_s = seconds(message.header.stamp)
        self._runtime.put_image(camera, undecoded_image(message), stamp_s=stamp_s)
        self._on_new_image()

    def _on_pose(self, message: PoseStamped) -> None:
        position, orientation = message.pose.position, message.pose.orientation
        self._runtime.put_pose(
            (position.x, position.y, position.z),
            (orientation.x, orientation.y, orientation.z, orientation.w),
            stamp_s=seconds(message.header.stamp),
            frame_id=message.header.frame_id,
        )

    def _on_joints(self, message: JointState) -> None:
        if len(message.name) != len(message.position):
            self._node.get_logger().error(
                f'joint_states ignored: {len(message.name)} names and {len(message.position)} '
                'positions, there must be one position per name',
                throttle_duration_sec=THROTTLE_S,
            )
            return
        self._runtime.put_joints(
            message.name, message.position, stamp_s=seconds(message.header.stamp)
        )

    def _on_instruction(self, message: String) -> None:
        try:
            self._runtime.set_instruction(message.data)
        except ObservationError as error:
            self._node.get_logger().error(
                f'instruction ignored: {error}', throttle_duration_sec=THROTTLE_S
            )

    def _on_incompatible_qos(self, topic: str, _event: Any) -> None:
        self._suspects.add(topic)
        self._node.get_logger().warning(
            f'a publisher on {topic} has incompatible QoS and cannot be heard; change it or set '
            f'qos_overrides.{topic}.subscription.*',
            throttle_duration_sec=THROTTLE_S,
        )
