"""The simulated robot's own time: physics steps, what is due when, episodes. No ROS."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from safe_vla_ros.sim.arm import STEP_S

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
        task, seed, instruction: What was asked for.
        elapsed_s: Simulated time since the start.
    """

    kind: str
    stamp_s: float
    episode: int
    task: str
    seed: int
    instruction: str
    elapsed_s: float


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
class LoopSettings:
    """How the robot's time runs.

    Attributes:
        camera_rate_hz, state_rate_hz: How often pictures and states are due, on the robot's clock.
        real_time_factor: Simulated seconds per second of wall clock.
        publish_clock: Whether everything is in simulated time, which then starts near zero.
        episode_duration_s: Simulated time after which an episode is over.
    """

    camera_rate_hz: float = 20.0
    state_rate_hz: float = 40.0
    real_time_factor: float = 1.0
    publish_clock: bool = False
    episode_duration_s: float = 8.0

    @property
    def arm_factor(self) -> float:
        """Simulated seconds per second of the clock that commands are given in."""
        return 1.0 if self.publish_clock else self.real_time_factor

    @property
    def step_wall_s(self) -> float:
        """Wall-clock time of one environment step."""
        return STEP_S / self.real_time_factor

    @property
    def ticks_per_step(self) -> int:
        """How often ``/clock`` moves within one environment step."""
        if not self.publish_clock:
            return 1
        return max(1, math.ceil(CLOCK_RATE_HZ * max(STEP_S, self.step_wall_s)))


class RobotLoop:
    """Advances an arm in its own thread and says when something is due.

    Commands and episodes may come from any thread; the arm is touched by one thread only.
    """

    def __init__(
        self,
        arm: SimulatedPanda,
        listener: RobotListener,
        settings: LoopSettings,
        *,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        """Take an arm that nobody else uses.

        Args:
            arm: The arm, made with ``settings.arm_factor``.
            listener: Who is told.
            settings: Rates and durations.
            wall_s: Clock of stamps and commands when there is no simulated one, seconds.
        """
        self._arm = arm
        self._listener = listener
        self._settings = settings
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._twist: tuple[Float64Array, float] | None = None
        self._gripper: float | None = None
        self._next: tuple[SimulatedPanda, int] | None = None
        self._swapped = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._tick = 0
        self._steps = 0
        self._first_step = 0
        self._next_capture_s = self._next_state_s = 0.0
        self._episode: EpisodeEvent | None = None
        self._episodes = 0
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
        """Environment steps since the start."""
        return self._steps

    @property
    def episode(self) -> EpisodeEvent | None:
        """The newest event; ``started`` means that the episode runs."""
        return self._episode

    def command_twist(self, linear_m_s: Float64Array) -> None:
        """Set the velocity of the end effector, float64 [3], finite, m/s in the base frame."""
        with self._lock:
            self._twist = (np.array(linear_m_s, dtype=np.float64), self.now_s)

    def command_gripper(self, opening: float) -> None:
        """Set the gripper's opening, 0 closed .. 1 open, finite."""
        with self._lock:
            self._gripper = opening

    def start_episode(self, arm: SimulatedPanda, seed: int, *, timeout_s: float = 30.0) -> bool:
        """Reset a scene and begin; the arm may be a new one for another task.

        Returns:
            Whether it began within the timeout.
        """
        with self._lock:
            self._next = (arm, seed)
            self._swapped.clear()
        return self._swapped.wait(timeout_s)

    def advance(self) -> None:
        """Do one tick: the clock moves, and on every last tick of a step the arm does."""
        self._tick += 1
        now_s = self.now_s
        if self._settings.publish_clock:
            self._listener.on_clock(now_s)
        if self._tick % self._settings.ticks_per_step:
            return
        self._take_orders(now_s)
        self._arm.step(now_s)
        self._steps += 1
        self._end_episode(now_s)
        self._report(now_s)

    def start(self) -> None:
        """Run in a thread of its own until ``stop``."""
        self._thread = threading.Thread(target=self._run, name='physics', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

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

    def _take_orders(self, now_s: float) -> None:
        with self._lock:
            twist, self._twist = self._twist, None
            gripper, self._gripper = self._gripper, None
            order, self._next = self._next, None
        if order is not None:
            self._begin_episode(*order, now_s)
            return
        if twist is not None:
            self._arm.command_twist(*twist)
        if gripper is not None:
            self._arm.command_gripper(gripper)

    def _begin_episode(self, arm: SimulatedPanda, seed: int, now_s: float) -> None:
        if self._episode is not None and self._episode.kind == 'started':
            self._tell('aborted', now_s)
        arm.reset(seed)
        self._arm = arm
        self._first_step = self._steps
        self._episodes += 1
        self._next_capture_s = self._next_state_s = now_s
        self._episode = EpisodeEvent(
            'started', now_s, self._episodes, arm.task.name, seed, arm.instruction, 0.0
        )
        self._listener.on_episode(self._episode)
        self._swapped.set()

    def _end_episode(self, now_s: float) -> None:
        if self._episode is None or self._episode.kind != 'started':
            return
        if self._arm.success:
            self._tell('success', now_s)
        elif self._elapsed_s >= self._settings.episode_duration_s:
            self._tell('timeout', now_s)

    @property
    def _elapsed_s(self) -> float:
        return (self._steps - self._first_step) * STEP_S

    def _tell(self, kind: str, now_s: float) -> None:
        running = self._episode
        if running is None:
            return
        self._episode = EpisodeEvent(
            kind, now_s, running.episode, running.task, running.seed, running.instruction,
            self._elapsed_s,
        )  # fmt: skip
        self._listener.on_episode(self._episode)

    def _report(self, now_s: float) -> None:
        # Half a step of tolerance: what is due before the middle of the next step is due now.
        horizon_s = now_s + STEP_S / self._settings.arm_factor / 2
        if horizon_s >= self._next_capture_s:
            self._next_capture_s = self._following(
                self._next_capture_s, self._settings.camera_rate_hz, now_s
            )
            self._listener.on_capture(self._arm, now_s)
        if horizon_s >= self._next_state_s:
            self._next_state_s = self._following(
                self._next_state_s, self._settings.state_rate_hz, now_s
            )
            self._listener.on_state(
                RobotState(
                    now_s,
                    self._arm.ee_position,
                    self._arm.ee_quaternion_xyzw,
                    self._arm.joint_names,
                    self._arm.joint_positions,
                )
            )

    @staticmethod
    def _following(due_s: float, rate_hz: float, now_s: float) -> float:
        """Keep the mean rate, but never make up for what was missed."""
        return max(due_s + 1.0 / rate_hz, now_s + 0.5 / rate_hz)
