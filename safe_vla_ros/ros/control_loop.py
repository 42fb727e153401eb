"""The control timer, alone in its callback group and in a thread of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from safe_vla_ros.ros.spinner import Spinner
from safe_vla_ros.runtime.tick_monitor import TickMonitor, TickTiming

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.timer import Timer

NICENESS = -10
"""Of the control thread, where the system allows it (`nice` in limits.conf): it goes before the
inference thread when both want a core."""


def make_companion(node: Node) -> Node:
    """Make the hidden node that carries the control timer.

    One for the whole life of a node: the middleware never gives back some 100 kB of every node.
    """
    return rclpy.create_node(
        f'_{node.get_name()}_control',
        namespace=node.get_namespace(),
        context=node.context,
        use_global_arguments=False,
        start_parameter_services=False,
        enable_rosout=False,
    )


class ControlLoop:
    """Calls back at the control rate, in the node's time, and measures how punctually.

    A node has one executor, so the timer lives on a hidden companion node: nothing that the main
    node does in its callbacks can delay a tick.
    """

    def __init__(
        self, node: Node, companion: Node, rate_hz: float, on_tick: Callable[[], None]
    ) -> None:
        """Prepare; nothing ticks yet.

        Args:
            node: The main node; its clock drives the timer.
            companion: Carries the timer; see ``make_companion``.
            rate_hz: Ticks per second of that clock.
            on_tick: Called in the control thread.
        """
        self._node = node
        self._period_s = 1.0 / rate_hz
        self._on_tick = on_tick
        self._monitor = TickMonitor(self._period_s)
        self._companion = companion
        self._timer: Timer | None = None
        self._spinner: Spinner | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._monitor = TickMonitor(self._period_s)
        self._timer = self._companion.create_timer(
            self._period_s,
            self._tick,
            callback_group=MutuallyExclusiveCallbackGroup(),
            clock=self._node.get_clock(),
        )
        self._spinner = Spinner(self._companion, 'control', niceness=NICENESS)

    def stop(self) -> None:
        """End ticking; a tick that is running finishes first."""
        if self._spinner is None or self._timer is None:
            return
        self._spinner.end()
        self._companion.destroy_timer(self._timer)
        self._spinner = self._timer = None

    @property
    def period_s(self) -> float:
        """Time between two ticks, seconds."""
        return self._period_s

    @property
    def timing(self) -> TickTiming:
        """How punctual the ticks have been since the start."""
        return self._monitor.timing()

    def _tick(self) -> None:
        began_s = time.monotonic()
        clock = self._node.get_clock()
        now_s = clock.now().nanoseconds * 1e-9 if clock.ros_time_is_active else began_s
        self._on_tick()
        self._monitor.ticked(now_s, time.monotonic() - began_s)
