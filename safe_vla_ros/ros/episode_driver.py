"""Drives the policy node and the simulated robot through episodes, and notes what they say."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from safe_vla_ros.errors import ObservationError, SafeVlaError
from safe_vla_ros.ros.message_building import seconds
from safe_vla_ros.runtime.image_decoding import decode_image
from safe_vla_ros.runtime.message_reading import read_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.types import UInt8Array

POLL_S = 0.02


class DriverError(SafeVlaError):
    """A node does not answer, or refuses what it was asked."""


@dataclass(frozen=True)
class Note:
    """One diagnostic status as it came in: its header's stamp (s), name, message and values."""

    stamp_s: float
    name: str
    message: str
    values: Mapping[str, str]


@dataclass
class EpisodeNotes:
    """What was said during one episode.

    Attributes:
        inferences: One note per inference, with the values of all its statuses.
        resets: One per key step that renewed the saliency reference.
        states: Changes of the policy node's state.
        events: What the robot said about the episode.
        diagnostics: Everything on ``/diagnostics``.
        pictures: Images by topic with their stamps (s), uint8 [H, W, 3]; only while watched.
    """

    inferences: list[Note] = field(default_factory=list)
    resets: list[Note] = field(default_factory=list)
    states: list[Note] = field(default_factory=list)
    events: list[Note] = field(default_factory=list)
    diagnostics: list[Note] = field(default_factory=list)
    pictures: dict[str, list[tuple[float, UInt8Array]]] = field(default_factory=dict)


class EpisodeDriver:
    """A ROS 2 participant with a thread of its own; every call waits with a timeout.

    Attributes:
        notes: What has been said since ``new_notes``.
        diagnostics: Newest status of every name on ``/diagnostics``.
    """

    def __init__(
        self,
        *,
        domain_id: int,
        policy: str = 'pruned_policy',
        robot: str = 'sim_robot',
        watch: Callable[[], None] = lambda: None,
        use_sim_time: bool = False,
    ) -> None:
        """Join the domain.

        Args:
            domain_id: ROS domain.
            policy: Name of the policy node.
            robot: Name of the simulated robot's node.
            watch: Called while waiting; what it raises ends the wait.
            use_sim_time: Whether the node's clock follows /clock.
        """
        self._policy, self._robot, self._watch = policy, robot, watch
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        overrides = [Parameter('use_sim_time', value=use_sim_time)]
        self.node = rclpy.create_node('demo', context=self._context, parameter_overrides=overrides)
        self.notes = EpisodeNotes()
        self.diagnostics: dict[str, Note] = {}
        self._watched: list[Any] = []
        self._clients: dict[str, Any] = {}
        self._episode = '0'
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscribe = self.node.create_subscription
        subscribe(DiagnosticArray, f'{policy}/inference', self._on_inference, 10)
        subscribe(DiagnosticArray, f'{policy}/subtask_reset', self._noting('resets'), 10)
        subscribe(DiagnosticStatus, f'{policy}/state', self._on_state, latched)
        subscribe(DiagnosticArray, f'{robot}/episode', self._noting('events'), latched)
        subscribe(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name='driver', daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the domain."""
        rclpy.try_shutdown(context=self._context)
        self._thread.join(timeout=5.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()

    def configure(self, timeout_s: float = 120.0) -> None:
        """Have the policy node load its policy."""
        self._change(Transition.TRANSITION_CONFIGURE, 'configure', timeout_s)

    def activate(self, timeout_s: float = 30.0) -> None:
        """Have the policy node begin its work."""
        self._change(Transition.TRANSITION_ACTIVATE, 'activate', timeout_s)

    def deactivate(self, timeout_s: float = 10.0) -> None:
        """Have the policy node halt the robot and stop working."""
        self._change(Transition.TRANSITION_DEACTIVATE, 'deactivate', timeout_s)

    @property
    def policy_is_active(self) -> bool:
        """Whether the policy node says that it is active."""
        answer = self._call(GetState, f'{self._policy}/get_state', GetState.Request(), 5.0)
        return bool(answer.current_state.id == State.PRIMARY_STATE_ACTIVE)

    def set_parameters(self, node: str, **values: Any) -> None:
        """Set parameters of a node together; dots in names are written as two underscores.

        Raises:
            DriverError: Refused; nothing changed.
        """
        request = SetParametersAtomically.Request()
        request.parameters = [
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        answer = self._call(
            SetParametersAtomically, f'{node}/set_parameters_atomically', request, 10.0
        )
        if not answer.result.successful:
            msg = f'{node} refuses parameters: {answer.result.reason}'
            raise DriverError(msg)

    def set_pruning(self, method: str, keep_ratio: float) -> None:
        """Choose the pruning of the inferences to come."""
        self.set_parameters(self._policy, pruning__method=method, pruning__keep_ratio=keep_ratio)

    def begin_episode(self, task: str, seed: int, init_state: int | None = None) -> None:
        """Reset policy and scene; the policy acts when the robot tells it the instruction.

        Args:
            task: Name, see ``sim.tasks.get_task``.
            seed: Seed of the placement.
            init_state: Number of an official initial state; None places everything by the seed.

        Raises:
            DriverError: Refused, or not done in time.
        """
        number = -1 if init_state is None else init_state
        self.set_parameters(self._robot, task=task, seed=seed, init_state=number)
        self._trigger(f'{self._policy}/reset_episode', 5.0)
        self.new_notes()
        answer = self._trigger(f'{self._robot}/start_episode', 120.0)
        found = re.match(r'episode (\d+):', answer)
        self._episode = found.group(1) if found else ''

    def new_notes(self) -> EpisodeNotes:
        """Begin a new page and return the old one."""
        old, self.notes = self.notes, EpisodeNotes()
        return old

    def end_of_episode(self, timeout_s: float, each_poll: Callable[[], None]) -> Note:
        """Wait until the robot says that the running episode has ended.

        Raises:
            DriverError: It does not say so in time.
        """

        def ended() -> Note | None:
            each_poll()
            for note in self.notes.events:
                if note.values['episode'] == self._episode and note.message != 'started':
                    return note
            return None

        note: Note = self._wait(ended, timeout_s, 'the end of the episode')
        return note

    def refresh_diagnostics(self) -> None:
        """Wait until ``diagnostics`` holds what the policy node says from now on."""
        before = dict(self.diagnostics)
        name = next((name for name in before if name.endswith(': control')), ': control')

        def renewed() -> bool:
            return self.diagnostics.get(name) is not before.get(name)

        self._wait(renewed, 30.0, 'diagnostics of the policy node')

    def watch_pictures(self, topics: Mapping[str, str]) -> None:
        """Keep the images of topics in the notes, by the given names; nothing ends it."""
        for topic in self._watched:
            self.node.destroy_subscription(topic)
        self._watched = [
            self.node.create_subscription(
                Image, topic, self._keeping(name), qos_profile_sensor_data
            )
            for name, topic in topics.items()
        ]

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def _noting(self, page: str) -> Callable[[DiagnosticArray], None]:
        def note(message: DiagnosticArray) -> None:
            getattr(self.notes, page).extend(_notes_of(message))

        return note

    def _on_inference(self, message: DiagnosticArray) -> None:
        first, *others = _notes_of(message)
        values = dict(first.values)
        for note in others:
            values.update(note.values)
        self.notes.inferences.append(Note(first.stamp_s, first.name, first.message, values))

    def _on_state(self, status: DiagnosticStatus) -> None:
        self.notes.states.append(_note(status, time.time()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for note in _notes_of(message):
            self.diagnostics[note.name] = note
            self.notes.diagnostics.append(note)

    def _keeping(self, name: str) -> Callable[[Image], None]:
        def keep(message: Image) -> None:
            try:
                image = decode_image(read_image(message))
            except ObservationError as error:
                self.node.get_logger().error(f'picture of {name} ignored: {error}')
                return
            frames = self.notes.pictures.setdefault(name, [])
            frames.append((seconds(message.header.stamp), image))

        return keep

    def _change(self, transition: int, what: str, timeout_s: float) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        answer = self._call(ChangeState, f'{self._policy}/change_state', request, timeout_s)
        if not answer.success:
            msg = f'{self._policy} could not {what}; its log says why'
            raise DriverError(msg)

    def _trigger(self, service: str, timeout_s: float) -> str:
        answer = self._call(Trigger, service, Trigger.Request(), timeout_s)
        if not answer.success:
            msg = f'{service} refused: {answer.message}'
            raise DriverError(msg)
        return str(answer.message)

    def _call(self, kind: Any, service: str, request: Any, timeout_s: float) -> Any:
        if service not in self._clients:
            self._clients[service] = self.node.create_client(kind, service)
        client = self._clients[service]
        self._wait(client.service_is_ready, 60.0, f'the service {service}')
        future = client.call_async(request)
        self._wait(future.done, timeout_s, f'an answer of {service}')
        return future.result()

    def _wait(self, done: Callable[[], Any], timeout_s: float, what: str) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not (found := done()):
            self._watch()
            if time.monotonic() > deadline_s:
                msg = f'waited {timeout_s:g} s in vain for {what}'
                raise DriverError(msg)
            time.sleep(POLL_S)
        return found


def _notes_of(message: DiagnosticArray) -> list[Note]:
    stamp_s = seconds(message.header.stamp)
    return [_note(status, stamp_s) for status in message.status]


def _note(status: DiagnosticStatus, stamp_s: float) -> Note:
    values = {pair.key: pair.value for pair in status.values}
    return Note(stamp_s, status.name, status.message, values)
