"""A policy, a robot and a bench to tick a runtime on, without models, threads and waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from safe_vla_ros.runtime import (
    Command,
    ControlSettings,
    InferenceJob,
    InferenceReport,
    ManualClock,
    MotionLimits,
    PolicyRuntime,
    StateName,
)
from safe_vla_ros.types import (
    ActionChunk,
    EpisodeMemory,
    MessageHeader,
    Observation,
    PolicySpec,
    PruningRecord,
    PruningSettings,
)

PERIOD_S = 0.05
GENEROUS = MotionLimits(100.0, 100.0, 1e6, 1e6)


def record(key_step: bool = True) -> PruningRecord:
    return PruningRecord(
        method='none',
        total={'front': 4},
        kept={'front': 4},
        key_step=key_step,
        reason='episode_start' if key_step else None,
        similarity=None,
        threshold=0.9,
        scores={},
        kept_masks={},
        stage_ms={},
        decoder_macs=1,
        decoder_macs_full=1,
    )


def chunk(
    translation_m: Sequence[Sequence[float]] | np.ndarray,
    rotation_rad: Sequence[Sequence[float]] | np.ndarray | None = None,
    gripper: Sequence[float] | np.ndarray | None = None,
) -> ActionChunk:
    """Make a chunk from [T, 3] displacements; no rotation and an open gripper unless given."""
    moves = np.asarray(translation_m, dtype=np.float64)
    steps = len(moves)
    turns = np.zeros((steps, 3)) if rotation_rad is None else np.asarray(rotation_rad, float)
    openings = np.ones(steps) if gripper is None else np.asarray(gripper, float)
    return ActionChunk(moves, turns, openings, record())


def steady_chunk(speed_m_s: float = 0.1, steps: int = 8, gripper: float = 1.0) -> ActionChunk:
    """Make a chunk that moves along x at one speed."""
    moves = np.zeros((steps, 3))
    moves[:, 0] = speed_m_s * PERIOD_S
    return chunk(moves, gripper=np.full(steps, gripper))


class FakeMemory:
    """Remembers why it was cleared; a fake policy's step renews it when it is empty."""

    def __init__(self) -> None:
        self.reference_stamp_s: float | None = None
        self.reasons: list[str] = []

    def clear(self, reason: str) -> None:
        self.reference_stamp_s = None
        self.reasons.append(reason)


class FakePolicy:
    """Plans with a function of the observation; says what it was asked."""

    def __init__(
        self,
        plan: Callable[[Observation], ActionChunk] | None = None,
        cameras: tuple[str, ...] = ('front',),
        chunk_size: int = 8,
    ) -> None:
        self.plan = plan or (lambda _: steady_chunk(steps=chunk_size))
        self.spec = PolicySpec('fake', 'fake', cameras, len(cameras), chunk_size, 4, PERIOD_S, 4)
        self.observations: list[Observation] = []
        self.memories: list[FakeMemory] = []
        self.settings: list[PruningSettings] = []

    def new_episode(self) -> EpisodeMemory:
        return FakeMemory()

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        assert isinstance(memory, FakeMemory)
        self.observations.append(observation)
        self.memories.append(memory)
        self.settings.append(pruning)
        planned = self.plan(observation)
        if memory.reference_stamp_s is None:
            memory.reference_stamp_s = observation.stamp_s
        return planned


def control(**changes: object) -> ControlSettings:
    """Make settings with limits that nothing reaches and no blending, changed as given."""
    values: dict[str, object] = {
        'frame': 'base',
        'action_period_s': PERIOD_S,
        'execute_steps': 4,
        'blending': 'none',
        'limits': GENEROUS,
    }
    return ControlSettings(**{**values, **changes})  # type: ignore[arg-type]


class Bench:
    """A runtime on a clock that is told the time, fed with images, and asked at every tick."""

    def __init__(
        self,
        policy: FakePolicy | None = None,
        *,
        settings: ControlSettings | None = None,
        instruction: str = 'reach',
        layout: tuple[str, ...] = (),
        gripper_joints: tuple[str, ...] = (),
        latency_s: float = 0.0,
        steady_clock: ManualClock | None = None,
        pruning: PruningSettings | None = None,
        active: bool = True,
    ) -> None:
        self.policy = policy or FakePolicy()
        self.clock = ManualClock(10.0)
        self.steady_clock = steady_clock
        self.latency_s = latency_s
        self.interval_s = 0.02
        self.clock_runs = True
        self.inputs = {*self.policy.spec.cameras, 'ee_pose', 'joint_states'}
        self.position = np.array([0.4, 0.0, 0.3])
        self.quaternion = np.array([0.0, 0.0, 0.0, 1.0])
        self.joints = dict.fromkeys(gripper_joints, 0.02)
        self.reports: list[InferenceReport] = []
        self.job: InferenceJob | None = None
        self.runtime = PolicyRuntime(
            policy=self.policy,
            cameras=self.policy.spec.cameras,
            proprio_layout=layout,
            gripper_joint_names=gripper_joints,
            control=settings or control(),
            pruning=pruning or PruningSettings(method='none'),
            clock=self.clock,
            steady_clock=steady_clock,
            initial_instruction=instruction,
        )
        if active:
            self.runtime.activate()

    @property
    def now_s(self) -> float:
        return self.clock.now_s()

    @property
    def state(self) -> StateName:
        return self.runtime.state.name

    @property
    def reason(self) -> str:
        return self.runtime.state.reason

    def feed(self, stamp_s: float | None = None) -> None:
        """Give every input that is switched on a message made now."""
        stamp_s = self.now_s if stamp_s is None else stamp_s
        header = MessageHeader.at(stamp_s, 'base_link')
        for camera in self.policy.spec.cameras:
            if camera in self.inputs:
                image = np.zeros((4, 4, 3), np.uint8)
                self.runtime.put_image(camera, image, header=header)
        if 'ee_pose' in self.inputs:
            self.runtime.put_pose(self.position, self.quaternion, header=header)
        if self.joints and 'joint_states' in self.inputs:
            positions = list(self.joints.values())
            self.runtime.put_joints(list(self.joints), positions, header=header)

    def infer(self) -> None:
        """Begin what is due and finish what has taken its time."""
        if self.job is None:
            self.job = self.runtime.begin_inference()
        if self.job is not None and self.now_s >= self.job.started_s + self.latency_s - 1e-9:
            outcome = self.runtime.run_inference(self.job)
            self.job = None
            self.reports.append(self.runtime.finish_inference(outcome))

    def step(self, interval_s: float | None = None) -> Command | None:
        """Feed, infer and tick at the present time, then let time pass."""
        self.feed()
        self.infer()
        command = self.runtime.tick()
        self.pass_time(interval_s)
        if command is not None:
            self.position = self.position + command.linear_m_s * (interval_s or self.interval_s)
        return command

    def pass_time(self, interval_s: float | None = None) -> None:
        interval_s = self.interval_s if interval_s is None else interval_s
        if self.clock_runs:
            self.clock.advance(interval_s)
        if self.steady_clock is not None:
            self.steady_clock.advance(interval_s)

    def run(self, duration_s: float) -> list[Command | None]:
        """Step for some time."""
        return [self.step() for _ in range(round(duration_s / self.interval_s))]

    def tick_only(self, duration_s: float) -> list[Command | None]:
        """Tick for some time with inputs but without inference."""
        commands = []
        for _ in range(round(duration_s / self.interval_s)):
            self.feed()
            commands.append(self.runtime.tick())
            self.pass_time()
        return commands


def speed(command: Command | None) -> float:
    """Return the linear speed of a command, m/s; 0 for silence."""
    return 0.0 if command is None else float(np.linalg.norm(command.linear_m_s))


def shape_of_halt(commands: Sequence[Command | None]) -> tuple[list[float], int, int]:
    """Split what follows a halt reason into speeds, zeros and silent ticks; in this order only."""
    speeds = [speed(command) for command in commands]
    moving = next((i for i, value in enumerate(speeds) if value == 0.0), len(speeds))
    silent = next((i for i, command in enumerate(commands) if command is None), len(commands))
    assert all(command is None for command in commands[silent:])
    assert all(value == 0.0 for value in speeds[moving:])
    assert all(command.gripper is None for command in commands if command is not None)
    return speeds[:moving], silent - moving, len(commands) - silent
