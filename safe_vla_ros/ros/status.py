"""`/diagnostics` once a second and `~/state` on every change, in all states of the life cycle."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.qos import DurabilityPolicy, QoSProfile

from safe_vla_ros.ros.message_building import status_message
from safe_vla_ros.ros.policy_topics import overridable
from safe_vla_ros.runtime import RuntimeState, StateName, diagnostics, health

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.node import Node

    from safe_vla_ros.ros.configured_policy import ConfiguredPolicy

TASKS = ('inputs', 'inference', 'pruning', 'control')
PERIOD_S = 1.0


class Status:
    """Tells how the node is.

    Attributes:
        lock: Held while the tasks are published; who takes it, and then takes the configured policy
            away, may end its topics.
    """

    def __init__(
        self,
        node: Node,
        hardware_id: Callable[[], str],
        configured: Callable[[], ConfiguredPolicy | None],
    ) -> None:
        """Advertise the topics and begin.

        Args:
            node: Gets the publishers and the timer.
            hardware_id: Returns the robot's name.
            configured: Returns what works between configure and cleanup; None in between.
        """
        self._node = node
        self._hardware_id = hardware_id
        self._configured = configured
        self.lock = threading.Lock()
        self._told = RuntimeState(StateName.WAITING, '')
        self._before: tuple[weakref.ref[ConfiguredPolicy], health.Moment] | None = None
        root = node.get_namespace() == '/'
        self.name = node.get_name() if root else node.get_fully_qualified_name()
        self._diagnostics = node.create_publisher(
            DiagnosticArray,
            '/diagnostics',
            QoSProfile(depth=1),
            qos_overriding_options=overridable(),
        )
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._state = node.create_publisher(
            DiagnosticStatus, '~/state', latched, qos_overriding_options=overridable()
        )
        # Steady: diagnostics go on where /clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(PERIOD_S, self.publish, clock=steady)

    def publish_state(self, state: RuntimeState) -> None:
        """Publish the node's state; the tasks say it, too, while nothing is configured."""
        self._told = state
        judged = health.state_health(state)
        text = judged.message
        values = {'state': state.name, 'reason': state.reason or diagnostics.NONE}
        self._state.publish(
            status_message(f'{self.name}: state', judged.level, text, self._hardware_id(), values)
        )

    def publish(self) -> None:
        """Publish the four tasks."""
        with self.lock:
            self._publish(self._configured())

    def _publish(self, configured: ConfiguredPolicy | None) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        if configured is None:
            judged = health.state_health(self._told)
            tasks = {task: (judged, dict[str, str]()) for task in TASKS}
        else:
            tasks = self._judge(configured)
        message.status = [
            status_message(
                f'{self.name}: {task}', judged.level, judged.message, self._hardware_id(), values
            )
            for task, (judged, values) in tasks.items()
        ]
        self._diagnostics.publish(message)

    def _judge(
        self, configured: ConfiguredPolicy
    ) -> dict[str, tuple[health.Health, dict[str, str]]]:
        now = health.Moment(configured.runtime.statistics(), configured.timing, time.monotonic())
        known, before = self._before or (None, now)
        if known is None or known() is not configured or before.timing.ticks > now.timing.ticks:
            before = now
        self._before = (weakref.ref(configured), now)
        state, qos = configured.state, configured.subscriptions.incompatible_qos()
        elapsed_s = now.steady_s - before.steady_s
        done = now.statistics.inferences - before.statistics.inferences
        rate_hz = done / elapsed_s if elapsed_s > 0.0 else None
        pruning = configured.telemetry.pruning_values()
        return {
            'inputs': (
                health.input_health(state, qos),
                diagnostics.input_values(now.statistics, qos),
            ),
            'inference': (
                health.inference_health(state, now, before),
                {
                    **configured.telemetry.inference_values(),
                    **diagnostics.inference_values(now.statistics, rate_hz),
                },
            ),
            'pruning': (health.pruning_health(state, pruning.get('method', 'ready')), pruning),
            'control': (
                health.control_health(state, now, before, configured.other_publishers),
                {
                    'state': state.name,
                    'dry_run': diagnostics.flag(configured.dry_run),
                    **diagnostics.control_values(now.statistics, now.timing),
                },
            ),
        }
