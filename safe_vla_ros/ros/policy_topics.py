"""Topics of one configured policy: made with overridable QoS, and ended together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.event_handler import SubscriptionEventCallbacks
    from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
    from rclpy.subscription import Subscription


def overridable() -> QoSOverridingOptions:
    """Let users override the QoS of a topic by ``qos_overrides`` parameters."""
    return QoSOverridingOptions(
        (
            QoSPolicyKind.HISTORY,
            QoSPolicyKind.DEPTH,
            QoSPolicyKind.RELIABILITY,
            QoSPolicyKind.DURABILITY,
        )
    )


class PolicyTopics:
    """Makes publishers and subscriptions on a node and ends them all at once.

    Attributes:
        subscriptions: Those made so far.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: list[LifecyclePublisher] = []
        self.subscriptions: list[Subscription] = []
        self._closing: list[Callable[[], None]] = []

    def advertise(self, kind: Any, topic: str, depth: int = 1) -> LifecyclePublisher:
        """Make a reliable publisher that is silent while the node is not active."""
        publisher = self._node.create_lifecycle_publisher(
            kind, topic, QoSProfile(depth=depth), qos_overriding_options=overridable()
        )
        self._publishers.append(publisher)
        return publisher

    def subscribe(
        self,
        kind: Any,
        topic: str,
        callback: Callable[[Any], None],
        qos: QoSProfile,
        events: SubscriptionEventCallbacks | None = None,
    ) -> None:
        """Make a subscription."""
        self.subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                callback,
                qos,
                event_callbacks=events,
                qos_overriding_options=overridable(),
            )
        )

    def also_close(self, closing: Callable[[], None]) -> None:
        """End something else together with the topics."""
        self._closing.append(closing)

    def close(self) -> None:
        """End every topic."""
        for closing in self._closing:
            closing()
        self._closing.clear()
        for subscription in self.subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self.subscriptions.clear()
        self._publishers.clear()
