"""Finds out whether somebody else commands the robot on the same topic."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from rclpy.qos import QoSProfile, ReliabilityPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from builtin_interfaces.msg import Time
    from rclpy.node import Node

    from safe_vla_ros.ros.policy_topics import PolicyTopics

REMEMBERED_STAMPS = 1000
DEPTH = 50


class CommanderWatch:
    """Listens to the command topic; what this node did not send comes from somebody else.

    Messages are known by their stamps. Two nodes that follow the same ``/clock`` may use the same
    stamp, so the messages of each stamp are counted.
    """

    def __init__(
        self,
        node: Node,
        topics: PolicyTopics,
        kind: type,
        topic: str,
        on_other: Callable[[str], None],
    ) -> None:
        """Begin to listen.

        Args:
            node: Knows the publishers of the topic.
            topics: Makes the subscription.
            kind: Type of the commands; has a header.
            topic: Resolved name of the command topic.
            on_other: Told the topic with each command of somebody else.
        """
        self._node = node
        self._topic = topic
        self._on_other = on_other
        self._lock = threading.Lock()
        self._order: deque[tuple[int, int]] = deque()
        self._unheard: Counter[tuple[int, int]] = Counter()
        qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        topics.subscribe(kind, topic, self._on_message, qos)

    def will_send(self, stamp: Time) -> None:
        """Take note of a command of this node before it is sent."""
        key = (stamp.sec, stamp.nanosec)
        with self._lock:
            self._order.append(key)
            self._unheard[key] += 1
            if len(self._order) > REMEMBERED_STAMPS:
                oldest = self._order.popleft()
                self._unheard[oldest] -= 1
                if self._unheard[oldest] <= 0:
                    del self._unheard[oldest]

    @property
    def other_publishers(self) -> int:
        """How many other publishers the topic has, whether or not they send anything."""
        return max(0, int(self._node.count_publishers(self._topic)) - 1)

    def _on_message(self, message: Any) -> None:
        stamp = message.header.stamp
        key = (stamp.sec, stamp.nanosec)
        with self._lock:
            ours = self._unheard.get(key, 0) > 0
            if ours:
                self._unheard[key] -= 1
        if not ours:
            self._on_other(self._topic)
