"""Everything that works between configure and cleanup, put together."""

from __future__ import annotations

import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.ros.command_publisher import CommandPublisher
from safe_vla_ros.ros.commander_watch import CommanderWatch
from safe_vla_ros.ros.control_loop import ControlLoop
from safe_vla_ros.ros.image_fallback import cv_bridge_decoder
from safe_vla_ros.ros.overlays import Overlays
from safe_vla_ros.ros.policy_topics import PolicyTopics
from safe_vla_ros.ros.subscriptions import Subscriptions
from safe_vla_ros.ros.telemetry import Telemetry
from safe_vla_ros.runtime import RuntimeState, StateName, SteadyClock
from safe_vla_ros.runtime.health import OK, STATE_LEVELS, WARN
from safe_vla_ros.runtime.make_runtime import make_runtime
from safe_vla_ros.runtime.worker import InferenceWorker

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.clock import Clock
    from rclpy.lifecycle import LifecycleNode
    from rclpy.node import Node

    from safe_vla_ros.runtime import InferenceReport
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.runtime.tick_monitor import TickTiming
    from safe_vla_ros.types import Policy

LONGEST_HALT_S = 1.95
"""A halt ends within this time whatever happens; the runtime's own limit is a little shorter."""

REASON_PERIOD_S = 0.2
"""A reason often holds a growing age; more often than this it is not worth a message."""

WORKER_PATIENCE_S = 0.5
THROTTLE_S = 2.0
INACTIVE = RuntimeState(StateName.WAITING, 'the node is not active')


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """Return what calls a bound method as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: object) -> None:
        alive = reference()
        if alive is not None:
            alive(*arguments)

    return call


class NodeClock:
    """The node's time in seconds: ROS time, simulated where the node is told so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now_s(self) -> float:
        """Return the time now, seconds."""
        return float(self._clock.now().nanoseconds * 1e-9)


class ConfiguredPolicy:
    """Runtime, inference thread, control loop and topics of one configured policy.

    Attributes:
        runtime: Decides everything.
        subscriptions: The subscriptions.
        telemetry: What is published per inference.
    """

    def __init__(
        self,
        node: LifecycleNode,
        policy: Policy,
        resolved: Resolved,
        *,
        companion: Node,
        publish_state: Callable[[RuntimeState], None],
        name: str,
    ) -> None:
        """Build everything; nothing runs yet.

        Args:
            node: Gets subscriptions and publishers.
            policy: Loaded and warm.
            resolved: Settings.
            companion: Carries the control timer.
            publish_state: Is told every change of state.
            name: What the node is called in diagnostics.
        """
        self._node = node
        self._publish_state = publish_state
        self._name = name
        settings = resolved.node
        self.dry_run = settings.dry_run
        self.runtime = make_runtime(
            policy,
            resolved,
            clock=NodeClock(node.get_clock()),
            steady_clock=SteadyClock(),
            image_fallback=cv_bridge_decoder(),
        )
        # In a cycle of references the policy would outlive its last user, an inference perhaps.
        self._worker = InferenceWorker(
            self.runtime, _weakly(self._on_report), on_error=_weakly(self._on_error)
        )
        self._control = ControlLoop(
            node,
            companion,
            resolved.control.control_rate_hz,
            _weakly(self._tick),
            self.runtime.clock_stands_still,
        )
        self._topics = PolicyTopics(node)
        try:
            self._open_topics(resolved)
        except BaseException:
            self._topics.close()
            raise
        self._active = False
        self._leaving = False
        self._switching = threading.Lock()
        self._told, self._told_s = INACTIVE, 0.0

    @property
    def timing(self) -> TickTiming:
        """How punctual the control ticks are."""
        return self._control.timing

    @property
    def other_publishers(self) -> int:
        """How many other publishers the command topic has, where that is watched."""
        return self._watch.other_publishers if self._watch is not None else 0

    @property
    def active(self) -> bool:
        """Whether the robot may be commanded."""
        return self._active

    @property
    def state(self) -> RuntimeState:
        """What the runtime is doing and why."""
        return self.runtime.state if self._active else INACTIVE

    @property
    def announcement(self) -> str:
        """Say whether the robot will move."""
        return self._commands.announcement

    def apply(self, resolved: Resolved) -> None:
        """Take over dynamic parameters, at a tick and between two inferences."""
        self.runtime.apply(control=resolved.control, pruning=resolved.pruning)
        self._overlays.apply(resolved.node)

    def activate(self) -> None:
        """Begin to work."""
        with self._switching:
            if self._leaving:
                msg = 'the node is shutting down'
                raise SafeVlaError(msg)
            if self._watch is not None and self.runtime.other_commander:
                raise SafeVlaError(self.runtime.other_commander)
            simulated_time = self._node.get_clock().ros_time_is_active
            self.runtime.activate(simulated_time=simulated_time)
            self._active = True
            self._worker.start()
            self._overlays.start()
            self._control.start()

    def halt(self, *, leaving: bool = False) -> None:
        """Bring the arm to rest in steady time, with the publishers active; from any thread.

        Args:
            leaving: Whether no activation may follow.
        """
        with self._switching:
            self._leaving = self._leaving or leaving
            if not self._active:
                return
            deadline_s = time.monotonic() + LONGEST_HALT_S
            self.runtime.begin_deactivate()
            self._worker.stop(0.0)
            self._control.stop()
            next_s = time.monotonic()
            while not self.runtime.halted and next_s < deadline_s:
                self._tick()
                next_s += self._control.period_s
                time.sleep(max(0.0, next_s - time.monotonic()))
            if not self.runtime.halted:
                self._commands.publish_zero()
            self._active = False
            self._tell(INACTIVE)

    def deactivate(self) -> bool:
        """Halt and end the threads.

        Returns:
            Whether the inference thread has ended; if not, what it is busy with will be dropped.
        """
        self.halt()
        self._overlays.stop()
        return self._worker.stop(WORKER_PATIENCE_S)

    def close(self) -> threading.Thread | None:
        """Halt, and end every topic.

        Returns:
            The thread of an inference that has not ended, which keeps the policy in memory.
        """
        self.deactivate()
        self._topics.close()
        return self._worker.thread

    def _open_topics(self, resolved: Resolved) -> None:
        node, settings = self._node, resolved.node
        self._commands = CommandPublisher(
            self._topics, node.get_clock(), resolved.control, dry_run=settings.dry_run
        )
        self._watch: CommanderWatch | None = None
        if not (settings.dry_run or resolved.control.allow_other_commanders):
            self._watch = CommanderWatch(
                node,
                self._topics,
                self._commands.kind,
                self._commands.topic,
                self.runtime.hear_other_commander,
            )
            self._commands.will_send = self._watch.will_send
        self.subscriptions = Subscriptions(
            node,
            self._topics,
            self.runtime,
            cameras=resolved.policy.cameras,
            image_transport=settings.image_transport,
            ee_frame=settings.ee_frame,
            command_frame=resolved.control.command_frame,
            rate_hz=resolved.control.control_rate_hz,
            on_image=self._worker.wake,
        )
        self.telemetry = Telemetry(
            node,
            self._topics,
            name=self._name,
            hardware_id=settings.hardware_id,
            frame_id=resolved.control.command_frame,
        )
        self._overlays = Overlays(node, self._topics, settings, resolved.policy)

    def _tick(self) -> None:
        try:
            command = self.runtime.tick()
            if command is not None:
                self._commands.publish(command)
            self._tell_changes(self.runtime.state)
        except Exception as error:
            # The last command must not stay in force.
            self._commands.publish_zero()
            self._on_error(error)

    def _tell_changes(self, state: RuntimeState) -> None:
        if state.name != self._told.name:
            self._tell(state)
        elif state != self._told and time.monotonic() - self._told_s > REASON_PERIOD_S:
            self._publish(state)

    def _publish(self, state: RuntimeState) -> None:
        self._told, self._told_s = state, time.monotonic()
        self._publish_state(state)

    def _tell(self, state: RuntimeState) -> None:
        self._publish(state)
        if state.name is not StateName.RUNNING:
            self.telemetry.publish_path([])
        level = STATE_LEVELS[state.name]
        logger = self._node.get_logger()
        # A logger takes one severity per line of code.
        if level == OK:
            logger.info(f'state: {state.name}')
        elif level == WARN:
            logger.info(f'state: {state.name}: {state.reason}')
        else:
            logger.error(f'state: {state.name}: {state.reason}')

    def _on_error(self, error: Exception) -> None:
        text = ''.join(traceback.format_exception(error))
        self._node.get_logger().error(text, throttle_duration_sec=THROTTLE_S)

    def _on_report(self, report: InferenceReport) -> None:
        self.telemetry.publish(report)
        if report.accepted:
            self.telemetry.publish_path(self.runtime.planned_path())
        self._overlays.offer(report)
