"""The simulated robot's own time: physics steps, what is due when, episodes. No ROS."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from safe_vla_ros.sim.arm import STEP_S
from safe_vla_ros.sim.expert import look
from safe_vla_ros.sim.lifting import LiftWatch
from safe_vla_ros.sim.tasks import SPATIAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.sim.arm import SimulatedPanda
    from safe_vla_ros.types import Float64Array

CLOCK_RATE_HZ = 200.0
"""Lowest rate of ``/clock``, per second of either time."""

LARGEST_BACKLOG_S = 0.1
"""Steps that are later than this are given up: the robot's time slips instead."""


@dataclass(frozen=True)
class RobotState:
    """What the robot's sensors say besides its cameras; metres, radians, seconds."""

    stamp_s: float
    ee_position: Float64Array
    ee_quaternion_xyzw: Float64Array
    joint_names: tuple[str, ...]
    joint_positions: Float64Array


@dataclass(frozen=True)
class EpisodeEvent:
    """Something that happened to an episode.

    Attributes:
        kind: ``started``, ``success``, ``timeout`` or ``aborted``.
        stamp_s: When, on the robot's clock.
        episode: Number of the episode since the robot was started, from 1.
        task, seed, init_state, instruction: What was asked for, and in which placement.
        elapsed_s: Simulated time since the start.
        first_lifted: Of LIBERO-Spatial's bowls, ``lifting.ASKED`` or ``OTHER``; None if none was.
    """

    kind: str
    stamp_s: float
    episode: int
    task: str
    seed: int
    init_state: int | None
    instruction: str
    elapsed_s: float
    first_lifted: str | None = None


class RobotListener(Protocol):
    """Who is told what the robot does; called in the physics thread, so it must be quick."""

    def on_clock(self, now_s: float) -> None:
        """Simulated time moved; only with ``publish_clock``."""

    def on_state(self, state: RobotState) -> None:
        """A state is due."""

    def on_capture(self, arm: SimulatedPanda, stamp_s: float) -> None:
        """The shutter of all cameras opens: take a snapshot, render it elsewhere."""

    def on_episode(self, event: EpisodeEvent) -> None:
        """An episode started or ended."""


@dataclass(frozen=True)
class _Handover:
    """The next arm, None for no arm, and the seed and initial state of an episode if one begins."""

    arm: SimulatedPanda | None
    episode: tuple[int, int | None] | None = None


@dataclass(frozen=True)
class LoopSettings:
    """How the robot's time runs.

    Attributes:
        camera_rate_hz, state_rate_hz: How often pictures and states are due, on the robot's clock.
        real_time_factor: Simulated seconds per second of wall clock.
        publish_clock: Whether everything is in simulated time, which then starts near zero.
        episode_duration_s: Simulated time after which an episode is over; 0 for the benchmark's.
    """

    camera_rate_hz: float = 20.0
    state_rate_hz: float = 40.0
    real_time_factor: float = 1.0
    publish_clock: bool = False
    episode_duration_s: float = 0.0

    @property
    def step_wall_s(self) -> float:
        """Wall-clock time of one step of the arm."""
        return STEP_S / self.real_time_factor

    @property
    def ticks_per_step(self) -> int:
        """How often ``/clock`` moves within one step of the arm."""
        if not self.publish_clock:
            return 1
        return max(1, math.ceil(CLOCK_RATE_HZ * max(STEP_S, self.step_wall_s)))


class RobotLoop:
    """Advances an arm in its own thread and says when something is due.

    Time runs without an arm, too. Commands and episodes may come from any thread; the arm is
    touched by this loop only, from where it is handed over until another one or none is.
    """

    def __init__(
        self,
        listener: RobotListener,
        settings: LoopSettings,
        *,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Begin without an arm.

        Args:
            listener: Who is told.
            settings: Rates and durations.
            wall_s: Clock of stamps and commands when there is no simulated one, seconds.
        """
        self._arm: SimulatedPanda | None = None
        self._listener = listener
        self._settings = settings
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._twist: tuple[Float64Array, float, Float64Array] | None = None
        self._gripper: float | None = None
        self._next: _Handover | None = None
        self._handed_over = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._tick = 0
        self._steps = 0
        self._first_step = 0
        self._next_capture_s = self._next_state_s = 0.0
        self._episode: EpisodeEvent | None = None
        self._episodes = 0
        self._lifts = LiftWatch()
        self.late_steps = 0
        self.slips = 0
        self.error: Exception | None = None

    @property
    def now_s(self) -> float:
        """Time on the robot's clock, seconds: simulated, or the wall clock."""
        if self._settings.publish_clock:
            return (self._tick + 1) * STEP_S / self._settings.ticks_per_step
        return self._wall_s()

    @property
    def steps(self) -> int:
        """Steps of the arm since the start."""
        return self._steps

    @property
    def episode(self) -> EpisodeEvent | None:
        """The newest event; ``started`` means that the episode runs."""
        return self._episode

    def command_twist(self, linear_m_s: Float64Array, angular_rad_s: Float64Array) -> None:
        """Set the velocity of the end effector, float64 [3] each, finite, in the base frame."""
        linear, angular = np.array(linear_m_s, np.float64), np.array(angular_rad_s, np.float64)
        with self._lock:
            self._twist = (linear, self.now_s, angular)

    def command_gripper(self, opening: float) -> None:
        """Set the gripper's opening, 0 closed .. 1 open, finite."""
        with self._lock:
            self._gripper = opening

    def take(self, arm: SimulatedPanda | None, *, timeout_s: float = 30.0) -> bool:
        """Take an arm in place of the one before, or none; a running episode is aborted.

        Args:
            arm: Nobody else may use it any more.
            timeout_s: How long to wait.

        Returns:
            Whether the arm before is free within the timeout.
        """
        return self._hand_over(_Handover(arm), timeout_s)

    def start_episode(
        self,
        arm: SimulatedPanda,
        seed: int,
        init_state: int | None = None,
        *,
        timeout_s: float = 30.0,
    ) -> bool:
        """Take an arm and begin an episode.

        Args:
            arm: Just reset; nobody else may use it any more.
            seed: What it was reset with, for the event.
            init_state: The same.
            timeout_s: How long to wait.

        Returns:
            Whether it began within the timeout.
        """
        return self._hand_over(_Handover(arm, (seed, init_state)), timeout_s)

    def abort_episode(self) -> None:
        """Abort the running episode, if there is one; the arm stays."""
        self.take(self._arm)

    def advance(self) -> None:
        """Do one tick: the clock moves, and on every last tick of a step the arm does."""
        self._tick += 1
        now_s = self.now_s
        if self._settings.publish_clock:
            self._listener.on_clock(now_s)
        if self._tick % self._settings.ticks_per_step:
            return
        self._take_orders(now_s)
        arm = self._arm
        if arm is None:
            return
        arm.step(now_s)
        self._steps += 1
        self._end_episode(arm, now_s)
        self._report(arm, now_s)

    def start(self) -> None:
        """Run in a thread of its own until ``stop``."""
        self._thread = threading.Thread(target=self._run, name='physics', daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> bool:
        """End the thread.

        Args:
            timeout_s: How long to wait for it.

        Returns:
            Whether it has ended.
        """
        self._stop.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        period_s = self._settings.step_wall_s / self._settings.ticks_per_step
        due_s = time.monotonic()
        try:
            while not self._stop.is_set():
                due_s += period_s
                wait_s = due_s - time.monotonic()
                if wait_s > 0:
                    time.sleep(wait_s)
                elif wait_s < -LARGEST_BACKLOG_S:
                    due_s -= wait_s
                    self.slips += 1
                elif wait_s < -period_s:
                    self.late_steps += 1
                self.advance()
        except Exception as error:
            self.error = error

    def _hand_over(self, order: _Handover, timeout_s: float) -> bool:
        with self._lock:
            self._next = order
            self._handed_over.clear()
        return self._handed_over.wait(timeout_s)

    def _take_orders(self, now_s: float) -> None:
        with self._lock:
            twist, self._twist = self._twist, None
            gripper, self._gripper = self._gripper, None
            order, self._next = self._next, None
        if order is not None:
            self._follow(order, now_s)
            self._handed_over.set()
        elif self._arm is not None:
            if twist is not None:
                self._arm.command_twist(*twist)
            if gripper is not None:
                self._arm.command_gripper(gripper)

    def _follow(self, order: _Handover, now_s: float) -> None:
        if self._episode is not None and self._episode.kind == 'started':
            self._tell('aborted', now_s)
        self._arm = order.arm
        if order.arm is None or order.episode is None:
            return
        self._first_step = self._steps
        self._episodes += 1
        self._lifts = LiftWatch()
        self._next_capture_s = self._next_state_s = now_s
        self._episode = EpisodeEvent(
            'started', now_s, self._episodes, order.arm.task.name, *order.episode,
            order.arm.instruction, 0.0,
        )  # fmt: skip
        self._listener.on_episode(self._episode)

    def _end_episode(self, arm: SimulatedPanda, now_s: float) -> None:
        if self._episode is None or self._episode.kind != 'started':
            return
        if arm.task.suite == SPATIAL:
            self._lifts.see(look(arm))
        limit_s = self._settings.episode_duration_s or arm.task.max_duration_s
        if arm.success:
            self._tell('success', now_s)
        elif self._elapsed_s >= limit_s - STEP_S / 2:
            self._tell('timeout', now_s)

    @property
    def _elapsed_s(self) -> float:
        return (self._steps - self._first_step) * STEP_S

    def _tell(self, kind: str, now_s: float) -> None:
        running = self._episode
        if running is None:
            return
        self._episode = replace(
            running, kind=kind, stamp_s=now_s, elapsed_s=self._elapsed_s,
            first_lifted=self._lifts.first,
        )  # fmt: skip
        self._listener.on_episode(self._episode)

    def _report(self, arm: SimulatedPanda, now_s: float) -> None:
        # Half a step of tolerance: what is due before the middle of the next step is due now.
        horizon_s = now_s + STEP_S / 2
        if horizon_s >= self._next_capture_s:
            self._next_capture_s = self._following(
                self._next_capture_s, self._settings.camera_rate_hz, now_s
            )
            self._listener.on_capture(arm, now_s)
        if horizon_s >= self._next_state_s:
            self._next_state_s = self._following(
                self._next_state_s, self._settings.state_rate_hz, now_s
            )
            self._listener.on_state(
                RobotState(
                    now_s,
                    arm.ee_position,
                    arm.ee_quaternion_xyzw,
                    arm.joint_names,
                    arm.joint_positions,
                )
            )

    @staticmethod
    def _following(due_s: float, rate_hz: float, now_s: float) -> float:
        """Keep the mean rate, but never make up for what was missed."""
        return max(due_s + 1.0 / rate_hz, now_s + 0.5 / rate_hz)
