"""Subscriptions: callbacks that only store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PoseStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from safe_vla_ros.errors import ObservationError
from safe_vla_ros.ros.pose_from_tf import PoseFromTf
from safe_vla_ros.runtime.message_reading import read_header, read_image, read_joints, read_pose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rclpy.node import Node

    from safe_vla_ros.ros.policy_topics import PolicyTopics
    from safe_vla_ros.runtime import PolicyRuntime

THROTTLE_S = 2.0

JOINT_STATES_DEPTH = 20
"""Messages of ``joint_states`` that wait for their turn.

All publishers share the queue: with one place, the gripper's message is lost whenever the arm's
comes before it was read. Twenty hold 40 ms of an arm at 500 Hz.
"""


class Subscriptions:
    """Feeds the runtime from topics, and knows which publishers have incompatible QoS."""

    def __init__(
        self,
        node: Node,
        topics: PolicyTopics,
        runtime: PolicyRuntime,
        *,
        cameras: Sequence[str],
        image_transport: str,
        ee_frame: str,
        command_frame: str,
        rate_hz: float,
        on_image: Callable[[], None],
    ) -> None:
        """Subscribe.

        Args:
            node: Logs, and knows the publishers of a topic.
            topics: Makes the subscriptions.
            runtime: Gets the messages.
            cameras: Names that prefix the image topics.
            image_transport: ``raw`` or ``compressed``.
            ee_frame: Frame whose pose is looked up in tf; empty takes the topic ``ee_pose``.
            command_frame: The frame that pose is given in.
            rate_hz: How often it is looked up.
            on_image: Called after an image was stored.
        """
        self._node = node
        self._topics = topics
        self._runtime = runtime
        self._on_new_image = on_image
        self._suspects: set[str] = set()
        kind, suffix = (Image, '') if image_transport == 'raw' else (CompressedImage, '/compressed')
        for camera in cameras:
            topic = f'{camera}/image_raw{suffix}'
            self._subscribe(kind, topic, partial(self._on_image, camera))
        if ee_frame:
            looked_up = PoseFromTf(
                node,
                ee_frame=ee_frame,
                command_frame=command_frame,
                rate_hz=rate_hz,
                on_pose=self._on_pose,
            )
            topics.also_close(looked_up.close)
        else:
            self._subscribe(PoseStamped, 'ee_pose', self._on_pose)
        self._subscribe(JointState, 'joint_states', self._on_joints, depth=JOINT_STATES_DEPTH)
        self._subscribe(String, 'instruction', self._on_instruction, reliable=True)

    def incompatible_qos(self) -> dict[str, int]:
        """Return how many publishers have incompatible QoS now, by topic."""
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
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        *,
        depth: int = 1,
        reliable: bool = False,
    ) -> None:
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(
                self._on_incompatible_qos, self._node.resolve_topic_name(topic)
            )
        )
        qos = QoSProfile(depth=depth, reliability=reliability)
        self._topics.subscribe(kind, topic, callback, qos, events)

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        self._runtime.put_image(camera, read_image(message), header=read_header(message))
        self._on_new_image()

    def _on_pose(self, message: PoseStamped) -> None:
        self._runtime.put_pose(*read_pose(message), header=read_header(message))

    def _on_joints(self, message: JointState) -> None:
        self._runtime.put_joints(*read_joints(message), header=read_header(message))

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
            f'a publisher on {topic} has incompatible QoS, so its messages do not arrive; change '
            f'its QoS or set qos_overrides.{topic}.subscription.*',
            throttle_duration_sec=THROTTLE_S,
        )
