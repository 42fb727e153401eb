"""The loop of a replay: messages, control ticks and ends of inferences in the order of bag time."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from safe_vla_ros.errors import ObservationError
from safe_vla_ros.replay.cdr import read_message
from safe_vla_ros.replay.errors import MessageError
from safe_vla_ros.replay.replay_setup import STAMP_CLOCK
from safe_vla_ros.replay.shared_images import SharedImage, check_encoding
from safe_vla_ros.runtime.clocks import ManualClock
from safe_vla_ros.runtime.message_reading import (
    read_header,
    read_image,
    read_joints,
    read_pose,
    read_twist,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from safe_vla_ros.replay.bags import BagMessage
    from safe_vla_ros.replay.method_run import MethodRun
    from safe_vla_ros.replay.section_timer import SectionTimer
    from safe_vla_ros.replay.topic_routes import Route, Routes
    from safe_vla_ros.runtime.image_decoding import CompressedImage, RawImage
    from safe_vla_ros.types import MessageHeader

STAMPED_PARTS = ('image', 'ee_pose', 'joint_states', 'recorded_twist')
"""Parts whose header's stamp says when the message was made."""

LARGEST_DISORDER_S = 0.1
"""Messages this much out of order are taken as simultaneous; more is a jump of the clock."""

CLOCKS_APART_S = 0.5


class BagPlayer:
    """Plays one bag into several runtimes at once.

    Attributes:
        clock: The bag's time, which the runtimes share.
        runs: The methods, in the order in which they are served.
        skipped: Messages that were not used, or used with reservations, by reason.
        messages: Messages read.
        start_s: The clock's time of the first message, seconds.
        notes: What a reader of the result should know.
    """

    def __init__(
        self,
        routes: Routes,
        clock: ManualClock,
        runs: Sequence[MethodRun],
        *,
        period_s: float,
        time_source: str,
        stopwatch: SectionTimer,
    ) -> None:
        self.clock = clock
        self.runs = runs
        self.skipped: Counter[str] = Counter()
        self.messages = 0
        self.start_s = 0.0
        self.notes: list[str] = []
        self._checked: set[str] = set()
        self._routes = routes.by_topic
        self._period_s = period_s
        self._use_stamps = time_source == STAMP_CLOCK
        self._stopwatch = stopwatch
        self._first_tick_s = 0.0
        self._before_jumps_s = 0.0
        self._ticks = 0
        self._stamps: dict[str, float] = {}

    @property
    def played_s(self) -> float:
        """Time that was played, seconds."""
        return self._before_jumps_s + self.clock.now_s() - self._first_tick_s

    def play(self, messages: Iterable[BagMessage], keep_going: Callable[[float], bool]) -> bool:
        """Play messages to the end.

        Args:
            messages: The bag's.
            keep_going: Told the bag time with every message; False ends the replay there.

        Returns:
            Whether the end was reached.

        Raises:
            BagError: The bag is damaged there, or a camera's encoding is unknown.
        """
        source = iter(messages)
        while True:
            with self._stopwatch.section('messages'):
                message = next(source, None)
            if message is None:
                return True
            if not keep_going(message.time_s):
                return False
            self._play_message(message)

    def finish(self) -> None:
        """Let every inference that was begun end, at its own time, and close the runs."""
        for run in sorted(self.runs, key=_due_s):
            if run.due_s is not None:
                self.clock.set(max(run.due_s, self.clock.now_s()))
                run.complete(self.clock.now_s())
            run.close()

    def _play_message(self, bag_message: BagMessage) -> None:
        route = self._routes[bag_message.topic]
        self.messages += 1
        with self._stopwatch.section('messages'):
            try:
                message = read_message(bag_message.msgtype, bag_message.raw)
            except MessageError as error:
                self._skip(f'undecodable on {route.topic}', f'{route.topic}: {error}')
                return
            header = read_header(message) if route.part in STAMPED_PARTS else None
            time_s = self._time_of(bag_message, header)
        self._advance(time_s)
        with self._stopwatch.section('messages'):
            if header is None:
                self._deliver_event(route, message)
            else:
                self._deliver_stamped(route, message, header)
        if route.part == 'image':
            self._wake()

    def _time_of(self, message: BagMessage, header: MessageHeader | None) -> float:
        if header is None:
            return self.clock.now_s() if self._use_stamps and self._ticks else message.time_s
        stamp_s = header.stamp_s
        if stamp_s < self._stamps.get(message.topic, -math.inf):
            self._skip(f'header stamp goes back on {message.topic}')
        elif message.topic not in self._stamps and not self._use_stamps:
            self._compare_clocks(message, stamp_s)
        self._stamps[message.topic] = stamp_s
        return stamp_s if self._use_stamps else message.time_s

    def _compare_clocks(self, message: BagMessage, stamp_s: float) -> None:
        apart_s = message.time_s - stamp_s
        if abs(apart_s) > CLOCKS_APART_S:
            self.notes.append(
                f'stamps on {message.topic} are {apart_s:.3f} s behind the time of recording; if '
                'they come from another clock, replay with --clock stamps'
            )

    def _advance(self, time_s: float) -> None:
        now_s = self.clock.now_s()
        if not self._ticks:
            self.start_s = time_s
            self._restart(time_s)
        elif time_s < now_s - LARGEST_DISORDER_S:
            self._skip('time jumps back')
            self._finish_all()
            self._before_jumps_s = self.played_s
            self._restart(time_s)
        elif time_s < now_s:
            self._skip('out of order')
            return
        while True:
            tick_s = self._first_tick_s + self._ticks * self._period_s
            run = min(self.runs, key=_due_s)
            if min(tick_s, _due_s(run)) > time_s:
                break
            if _due_s(run) <= tick_s:
                self.clock.set(_due_s(run))
                self._complete(run)
            else:
                self.clock.set(tick_s)
                self._tick()
        self.clock.set(time_s)

    def _restart(self, time_s: float) -> None:
        self.clock.set(time_s)
        self._first_tick_s, self._ticks = time_s, 0
        self._tick()

    def _tick(self) -> None:
        self._ticks += 1
        now_s = self.clock.now_s()
        for run in self.runs:
            with self._stopwatch.section('ticks'):
                run.tick(now_s)
        self._wake()

    def _wake(self) -> None:
        with self._stopwatch.section('inferences'):
            for run in self.runs:
                run.wake(self.clock.now_s())

    def _complete(self, run: MethodRun) -> None:
        with self._stopwatch.section('inferences'):
            run.complete(self.clock.now_s())
            run.wake(self.clock.now_s())

    def _finish_all(self) -> None:
        for run in self.runs:
            run.complete(self.clock.now_s())

    def _deliver_event(self, route: Route, message: Any) -> None:
        if route.part == 'instruction':
            self._deliver_instruction(route, message.data)
        elif route.part == 'episode':
            if message.status and message.status[0].message == 'started':
                for run in self.runs:
                    run.runtime.reset_episode()
        else:
            for run in self.runs:
                run.agreement.record_gripper(message.data)

    def _deliver_instruction(self, route: Route, text: str) -> None:
        try:
            for run in self.runs:
                run.runtime.set_instruction(text)
        except ObservationError as error:
            self._skip(f'refused on {route.topic}', f'{route.topic}: {error}')

    def _deliver_stamped(self, route: Route, message: Any, header: MessageHeader) -> None:
        if route.part == 'image':
            self._deliver_image(route, read_image(message), header)
        elif route.part == 'ee_pose':
            position, quaternion = read_pose(message)
            for run in self.runs:
                run.runtime.put_pose(position, quaternion, header=header)
        elif route.part == 'joint_states':
            names, positions = read_joints(message)
            for run in self.runs:
                run.runtime.put_joints(names, positions, header=header)
        else:
            linear, angular = read_twist(message)
            for run in self.runs:
                run.agreement.record_twist(self.clock.now_s(), linear, angular)

    def _deliver_image(
        self, route: Route, image: RawImage | CompressedImage, header: MessageHeader
    ) -> None:
        if route.camera not in self._checked:
            check_encoding(route.camera, route.topic, image)
            self._checked.add(route.camera)
        shared = SharedImage(image).as_image()
        for run in self.runs:
            run.runtime.put_image(route.camera, shared, header=header)

    def _skip(self, reason: str, example: str = '') -> None:
        if example and reason not in self.skipped:
            self.notes.append(example)
        self.skipped[reason] += 1


def _due_s(run: MethodRun) -> float:
    due_s = run.due_s
    return math.inf if due_s is None else due_s
