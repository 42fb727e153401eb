"""The control timer, alone in its callback group and in a thread of its own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock
from rclpy.clock_type import ClockType

from safe_vla_ros.ros.spinner import Spinner
from safe_vla_ros.runtime.tick_monitor import TickMonitor, TickTiming

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node
    from rclpy.timer import Timer

SUPERVISION_PERIOD_S = 0.02
"""How often, in steady time, it is asked whether simulated time stands still."""


def make_companion(node: Node) -> Node:
    """Make the hidden node that carries the control timers.

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
    """Calls back at the control rate, and measures how punctually.

    Ticks go by steady time, so setting the system's time changes nothing. With simulated time they
    follow ``/clock``, and steady time takes over where that stands still.

    A node has one executor, so the timers live on a hidden companion node: nothing that the main
    node does in its callbacks can delay a tick.
    """

    def __init__(
        self,
        node: Node,
        companion: Node,
        rate_hz: float,
        on_tick: Callable[[], None],
        clock_stands_still: Callable[[], bool],
    ) -> None:
        """Prepare; nothing ticks yet.

        Args:
            node: The main node; whether it follows ``/clock`` is asked at each start.
            companion: Carries the timers; see ``make_companion``.
            rate_hz: Ticks per second.
            on_tick: Called in the control thread.
            clock_stands_still: Tells in the control thread whether simulated time stands still.
        """
        self._node = node
        self._period_s = 1.0 / rate_hz
        self._on_tick = on_tick
        self._clock_stands_still = clock_stands_still
        self._monitor = TickMonitor(self._period_s)
        self._companion = companion
        self._timers: list[Timer] = []
        self._spinner: Spinner | None = None

    def start(self) -> None:
        """Begin to tick."""
        self._monitor = TickMonitor(self._period_s)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        calls = [(self._period_s, self._tick, steady)]
        if self._node.get_clock().ros_time_is_active:
            calls = [
                (self._period_s, self._tick, self._node.get_clock()),
                (SUPERVISION_PERIOD_S, self._supervise, steady),
            ]
        group = MutuallyExclusiveCallbackGroup()
        self._timers = [
            self._companion.create_timer(period_s, call, callback_group=group, clock=clock)
            for period_s, call, clock in calls
        ]
        self._spinner = Spinner(self._companion, 'control', urgent=True)

    def stop(self) -> None:
        """End ticking; a tick that is running finishes first."""
        if self._spinner is None:
            return
        self._spinner.end()
        for timer in self._timers:
            self._companion.destroy_timer(timer)
        self._spinner = None
        self._timers = []

    @property
    def period_s(self) -> float:
        """Time between two ticks, seconds."""
        return self._period_s

    @property
    def timing(self) -> TickTiming:
        """How punctual the ticks have been since the start."""
        return self._monitor.timing()

    def _supervise(self) -> None:
        if self._clock_stands_still():
            self._on_tick()

    def _tick(self) -> None:
        began_s = time.monotonic()
        clock = self._node.get_clock()
        now_s = clock.now().nanoseconds * 1e-9 if clock.ros_time_is_active else began_s
        self._on_tick()
        self._monitor.ticked(now_s, time.monotonic() - began_s)
