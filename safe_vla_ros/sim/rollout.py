"""One closed-loop episode in simulated time, through the node's own playback, limits and halts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from safe_vla_ros.runtime.clocks import ManualClock
from safe_vla_ros.runtime.delayed_inference import DelayedInference
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.make_runtime import make_runtime
from safe_vla_ros.runtime.proprio import assemble_proprio
from safe_vla_ros.runtime.states import StateName
from safe_vla_ros.sim.arm import BASE_FRAME, GRIPPER_JOINTS, STEP_S, SimulatedPanda
from safe_vla_ros.sim.expert import TableView, look
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, SceneSnapshot
from safe_vla_ros.sim.tasks import SPATIAL
from safe_vla_ros.types import MessageHeader

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.runtime.inference import InferenceReport
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
    from safe_vla_ros.types import Float64Array, Policy, UInt8Array

_START_S = 100.0
_BLACK = np.zeros((8, 8, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Latency:
    """Times between the robot and the policy, as they are measured over DDS; simulated seconds.

    Attributes:
        camera_s: From capture to the arrival of an image.
        inference_s: From taking an observation to its chunk, on average.
        inference_spread: Each one is drawn uniformly within this fraction of the average.
    """

    camera_s: float = 0.025
    inference_s: float = 0.045
    inference_spread: float = 0.4


@dataclass(frozen=True)
class Frame:
    """One instant at which the cameras saw the scene.

    Attributes:
        header: When that was.
        view: What ``SimulatedPanda.render`` shows of it.
        state: What the expert sees in it; None in suites that it does not know.
    """

    header: MessageHeader
    view: SceneSnapshot
    state: TableView | None

    @property
    def stamp_s(self) -> float:
        """When that was, seconds; the same number as in an observation of it."""
        return self.header.stamp_s


class FrameListener(Protocol):
    """Sees every frame with the proprioception that an inference on it would have."""

    def __call__(self, arm: SimulatedPanda, frame: Frame, proprio: Float64Array) -> None:
        """Take a frame when its images have arrived; float64 [P] in the policy's layout."""
        ...


@dataclass
class EpisodeResult:
    """What happened in an episode.

    Attributes:
        success: Whether the task's condition held at some moment.
        duration_s: Simulated time until success or the end, seconds.
        reports: Every inference.
        halts: Seconds spent in every state but running.
    """

    success: bool = False
    duration_s: float = 0.0
    reports: list[InferenceReport] = field(default_factory=list)
    halts: dict[StateName, float] = field(default_factory=dict)


def run_episode(
    arm: SimulatedPanda,
    policy: Policy,
    *,
    settings: Resolved,
    latency: Latency,
    seed: int,
    on_frame: FrameListener | None = None,
    camera_rate_hz: float = 20.0,
    blind: bool = False,
) -> EpisodeResult:
    """Run one episode until success or the benchmark's time limit.

    Args:
        arm: The robot, already reset.
        policy: Anything that turns observations into chunks.
        settings: Resolved for the arm, see ``closed_loop.resolve_episode``.
        latency: Modelled times between robot and policy.
        seed: Seed of the latency's spread.
        on_frame: Called for every frame once its images have arrived.
        camera_rate_hz: Frames per simulated second.
        blind: Give the policy black images; for a policy that does not look at them.

    Returns:
        Success, time and every inference's report.
    """
    clock = ManualClock(_START_S)
    runtime = make_runtime(policy, settings, clock=clock, instruction=arm.instruction)
    runtime.activate()
    episode = _Episode(
        arm, runtime, settings.policy.proprio_layout, clock, latency, np.random.default_rng(seed)
    )
    episode.tick_s = 1.0 / settings.control.control_rate_hz
    episode.steps_per_frame = max(1, round(1.0 / camera_rate_hz / STEP_S))
    episode.on_frame = on_frame
    episode.blind = blind
    return episode.run()


@dataclass
class _Episode:
    arm: SimulatedPanda
    runtime: PolicyRuntime
    proprio_layout: tuple[str, ...]
    clock: ManualClock
    latency: Latency
    random: np.random.Generator
    tick_s: float = 0.02
    steps_per_frame: int = 5
    on_frame: FrameListener | None = None
    blind: bool = False
    frames: list[Frame] = field(default_factory=list)
    result: EpisodeResult = field(default_factory=EpisodeResult)
    inference: DelayedInference = field(init=False)

    def __post_init__(self) -> None:
        self.inference = DelayedInference(self.runtime)

    def run(self) -> EpisodeResult:
        start_s = self.clock.now_s()
        next_tick_s = start_s
        for step in range(round(self.arm.task.max_duration_s / STEP_S)):
            now_s = start_s + step * STEP_S
            while next_tick_s < now_s:
                self._tick(next_tick_s)
                next_tick_s += self.tick_s
            self.clock.set(now_s)
            if step % self.steps_per_frame == 0:
                self.frames.append(self._see(now_s))
            self._sense(now_s)
            self._think(now_s)
            self.arm.step(now_s)
            self.result.duration_s = now_s + STEP_S - start_s
            if self.arm.success:
                self.result.success = True
                break
        return self.result

    def _see(self, now_s: float) -> Frame:
        state = look(self.arm) if self.arm.task.suite == SPATIAL else None
        return Frame(MessageHeader.at(now_s), self.arm.snapshot(), state)

    def _tick(self, now_s: float) -> None:
        self.clock.set(now_s)
        command = self.runtime.tick()
        state = self.runtime.state.name
        if state is not StateName.RUNNING:
            halts = self.result.halts
            halts[state] = halts.get(state, 0.0) + self.tick_s
        if command is None:
            return
        self.arm.command_twist(command.linear_m_s, now_s, command.angular_rad_s)
        if command.gripper is not None:
            self.arm.command_gripper(command.gripper)

    def _sense(self, now_s: float) -> None:
        arm, runtime = self.arm, self.runtime
        position, gripper = arm.ee_position, arm.gripper_positions
        quaternion = arm.ee_quaternion_xyzw
        now = MessageHeader.at(now_s, BASE_FRAME)
        runtime.put_pose(position, quaternion, header=now)
        runtime.put_joints(GRIPPER_JOINTS, gripper, header=now)
        while self.frames and self.frames[0].stamp_s + self.latency.camera_s <= now_s + 1e-9:
            frame = self.frames.pop(0)
            for camera in CAMERA_SIZES_PX:
                image = self._deferred(frame.view, camera)
                runtime.put_image(camera, image, header=frame.header)
            if self.on_frame is not None:
                proprio = assemble_proprio(
                    self.proprio_layout,
                    pose=Pose(position, quaternion),
                    joints=dict(zip(GRIPPER_JOINTS, gripper, strict=True)),
                    gripper_joint_names=GRIPPER_JOINTS,
                )
                self.on_frame(arm, frame, proprio)

    def _deferred(self, view: SceneSnapshot, camera: str) -> Callable[[], UInt8Array]:
        def render() -> UInt8Array:
            return _BLACK if self.blind else self.arm.render(camera, view)

        return render

    def _think(self, now_s: float) -> None:
        inference = self.inference
        if inference.due_s is not None and inference.due_s <= now_s:
            report = inference.finish()
            if report is not None:
                self.result.reports.append(report)
        inference.begin(now_s, self._modelled_latency_s)

    def _modelled_latency_s(self, _measured_s: float) -> float:
        spread = self.latency.inference_spread
        factor = 1.0 + spread * self.random.uniform(-1.0, 1.0)
        return factor * self.latency.inference_s
