"""What a robot needs around a policy, without threads and ROS."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from numpy.typing import ArrayLike

from safe_vla_ros.errors import ObservationError, shortened
from safe_vla_ros.runtime.collect_statistics import take_statistics
from safe_vla_ros.runtime.controller import Command, Controller, RuntimeState
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.halting import HaltReason
from safe_vla_ros.runtime.image_decoding import AnyImage, Fallback
from safe_vla_ros.runtime.inference import InferenceJob, InferenceOutcome, InferenceReport, infer
from safe_vla_ros.runtime.inference_scheduler import InferenceScheduler
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.instructions import clean_instruction
from safe_vla_ros.runtime.motion_permission import (
    DEACTIVATING,
    NEW_INSTRUCTION,
    NO_INSTRUCTION,
    PAUSED,
    RESET,
    TIME_JUMP,
    MotionPermission,
)
from safe_vla_ros.runtime.planned_path import planned_path
from safe_vla_ros.runtime.proprio import check_layout, joints_in_use, uses_pose
from safe_vla_ros.runtime.settings import ControlSettings
from safe_vla_ros.runtime.statistics import RuntimeStatistics
from safe_vla_ros.runtime.ticks import Tick, TickTimer
from safe_vla_ros.types import Clock, Policy, PruningSettings


class PolicyRuntime:
    """Inputs in, commands out, inferences asked for; the same for node, replay and simulation.

    Thread-safe: every method takes one lock for a short time; images are decoded and the policy
    runs without it. Times are those of the injected clock and above zero: a zero stamp is no stamp.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        cameras: Sequence[str],
        proprio_layout: Sequence[str],
        gripper_joint_names: Sequence[str],
        control: ControlSettings,
        pruning: PruningSettings,
        clock: Clock,
        initial_instruction: str = '',
        steady_clock: Clock | None = None,
        image_fallback: Fallback | None = None,
    ) -> None:
        """Put the parts together; inactive.

        Args:
            policy: Turns observations into chunks.
            cameras: Names in the model's order.
            proprio_layout: Parts of the proprioception; empty when the policy takes none.
            gripper_joint_names: Joints that ``gripper_joints`` stands for.
            control: How to play, limit and halt.
            pruning: How to prune.
            clock: Time of stamps, ages and ticks.
            initial_instruction: The task until another one is set.
            steady_clock: Time of the halt before deactivation and exit, which must end even if
                ``clock`` stands still; the same clock when not given.
            image_fallback: Decodes image encodings that this package does not.

        Raises:
            ParameterError: The layout cannot be put together.
            ObservationError: The initial instruction is too long.
        """
        check_layout(proprio_layout, gripper_joint_names)
        self._lock = threading.RLock()
        self._policy = policy
        self._layout = tuple(proprio_layout)
        self._gripper_joint_names = tuple(gripper_joint_names)
        self._control = control
        self._pruning = pruning
        self._clock = clock
        self._steady = clock if steady_clock is None else steady_clock
        self._fallback = image_fallback
        self._inputs = InputStore(
            cameras,
            joints_in_use(proprio_layout, gripper_joint_names),
            pose_in_use=self._needs_pose(control),
        )
        self._controller = Controller()
        self._scheduler = InferenceScheduler(policy)
        self._timer = TickTimer(control.control_rate_hz)
        self._steady_timer = TickTimer(control.control_rate_hz)
        self._permission = MotionPermission(clean_instruction(initial_instruction))

    # Inputs: only stored.

    def put_image(self, camera: str, image: AnyImage, *, stamp_s: float) -> None:
        """Store the newest image of a camera, undecoded.

        Raises:
            ObservationError: The camera is not one of the runtime's.
        """
        with self._lock:
            if camera not in self._inputs.cameras:
                known = ', '.join(self._inputs.cameras)
                raise ObservationError(f"got an image of camera '{camera}'; allowed are {known}")
            timeout_s = self._control.observation_timeout_s
            now_s = self._clock.now_s()
            self._inputs.put_image(camera, image, stamp_s=stamp_s, now_s=now_s, timeout_s=timeout_s)

    def put_pose(
        self, position: ArrayLike, quaternion_xyzw: ArrayLike, *, stamp_s: float, frame_id: str
    ) -> None:
        """Store the newest pose of the end effector: [3] in metres, [4] as x y z w."""
        with self._lock:
            self._inputs.put_pose(
                position,
                quaternion_xyzw,
                stamp_s=stamp_s,
                now_s=self._clock.now_s(),
                frame_id=frame_id,
                command_frame=self._control.command_frame,
            )

    def put_joints(self, names: Sequence[str], positions: ArrayLike, *, stamp_s: float) -> None:
        """Store joint positions by name, radians or metres."""
        with self._lock:
            now_s = self._clock.now_s()
            self._inputs.put_joints(names, positions, stamp_s=stamp_s, now_s=now_s)

    def set_instruction(self, text: str) -> None:
        """Set the task in words: a different text begins an episode, an empty one halts.

        Raises:
            ObservationError: It is too long; the instruction before stays in force.
        """
        text = clean_instruction(text)
        with self._lock:
            if text == self._permission.instruction:
                return
            self._permission.instruction = text
            self._begin_epoch('instruction', NEW_INSTRUCTION if text else NO_INSTRUCTION)

    # Life cycle.

    def activate(self) -> None:
        """Begin to work; nothing is commanded before the first chunk."""
        with self._lock:
            lock = self._permission
            lock.active, lock.closing, lock.breach = True, False, ''
            self._timer.restart()
            self._steady_timer.restart()
            self._scheduler.activate()
            self._scheduler.episodes.begin_epoch('episode_start')
            self._controller.activate(self._clock.now_s())

    def begin_deactivate(self) -> None:
        """Halt for good, in time of the steady clock; tick until ``halted``."""
        with self._lock:
            if not self._permission.active or self._permission.closing:
                return
            self._permission.closing = True
            self._scheduler.episodes.begin_epoch('episode_start')
            self._controller.close(DEACTIVATING, self._clock.now_s())

    @property
    def halted(self) -> bool:
        """Whether nothing will be commanded any more before the next activation."""
        with self._lock:
            return not self._permission.active or (
                self._permission.closing and self._controller.silent
            )

    def pause(self, paused: bool) -> None:
        """Halt and drop the chunk, or go on from a fresh observation."""
        with self._lock:
            if paused == self._permission.paused:
                return
            self._permission.paused = paused
            if paused:
                self._begin_epoch('service', PAUSED)
            else:
                self._controller.fresh_after_s = self._clock.now_s()

    def reset_episode(self) -> None:
        """Drop the chunk, clear the policy's memory and leave ``failed``."""
        with self._lock:
            self._scheduler.recover()
            self._permission.breach = ''
            self._begin_epoch('service', RESET)

    def apply(
        self, control: ControlSettings | None = None, pruning: PruningSettings | None = None
    ) -> None:
        """Change settings: control at the next tick, pruning from the next inference on."""
        with self._lock:
            self._control = control or self._control
            self._pruning = pruning or self._pruning
            self._inputs.pose_in_use = self._needs_pose(self._control)

    # Control.

    def tick(self) -> Command | None:
        """Say what to command now; None is silence."""
        with self._lock:
            tick = self._measure()
            if not self._permission.active:
                return None
            if tick.jumped_back:
                self._scheduler.episodes.begin_epoch('episode_start')
                self._inputs.forget()
                self._controller.forget_time(TIME_JUMP, tick.now_s)
            blocked = self._blocked(tick.now_s)
            return self._controller.tick(tick, blocked, self._inputs.pose, self._control)

    @property
    def state(self) -> RuntimeState:
        """What the last tick found, and why no chunk can be had where that is known."""
        with self._lock:
            state = self._controller.state
            more = self._scheduler.waits_for or self._scheduler.too_late
            if state.name in {'waiting', 'starved'} and more:
                return RuntimeState(state.name, f'{state.reason}: {more}')
            return state

    def planned_path(self) -> list[Pose]:
        """Return the poses of the rest of the chunk from the current pose; empty without either."""
        with self._lock:
            pose, frame = self._inputs.pose, self._control.frame
            rest = self._controller.player.rest()
        return planned_path(pose, rest, frame=frame) if pose is not None and rest else []

    def statistics(self) -> RuntimeStatistics:
        """Return what was counted and measured so far."""
        with self._lock:
            now_s = self._clock.now_s()
            return take_statistics(
                self._inputs, self._controller, self._scheduler, self._permission.instruction, now_s
            )

    # Inference.

    def begin_inference(self) -> InferenceJob | None:
        """Take an inference that is due: decode the newest images and put the observation together.

        Returns:
            The job; it has an error instead of an observation when an input cannot be decoded. None
            when none is due, one is running, or the inputs do not make a fresh observation.
        """
        with self._lock:
            now_s = self._clock.now_s()
            if not self._permission.active or self._blocked(now_s) is not None:
                self._scheduler.waits_for = ''
                return None
            draft = self._scheduler.draft(
                self._inputs,
                self._controller,
                instruction=self._permission.instruction,
                now_s=now_s,
                control=self._control,
                pruning=self._pruning,
            )
        if draft is None:
            return None
        try:
            observation = draft.snapshot.observe(
                self._layout, self._gripper_joint_names, self._fallback
            )
        except ObservationError as error:
            return replace(draft.job, error=shortened(str(error)))
        except Exception as error:
            return replace(draft.job, error=shortened(f'{type(error).__name__}: {error}'))
        return replace(draft.job, observation=observation)

    def run_inference(self, job: InferenceJob) -> InferenceOutcome:
        """Run the policy; takes the model's time and never raises."""
        return infer(self._policy, job)

    def finish_inference(self, outcome: InferenceOutcome) -> InferenceReport:
        """Play the chunk if nothing has made it worthless, and say what became of it."""
        with self._lock:
            return self._scheduler.take_in(
                outcome, self._controller, self._clock.now_s(), self._control
            )

    def _needs_pose(self, control: ControlSettings) -> bool:
        needed_for_control = control.frame == 'ee' or control.command_type == 'pose'
        return needed_for_control or control.workspace is not None or uses_pose(self._layout)

    def _begin_epoch(self, memory_reason: str, halt: HaltReason) -> None:
        self._scheduler.episodes.begin_epoch(memory_reason)
        self._controller.halt(halt, self._clock.now_s())

    def _measure(self) -> Tick:
        tick = self._timer.tick(self._clock.now_s())
        steady = self._steady_timer.tick(self._steady.now_s())
        if self._permission.closing or tick.jumped_back:
            return replace(tick, elapsed_s=steady.elapsed_s)
        return tick

    def _blocked(self, now_s: float) -> HaltReason | None:
        return self._permission.reason(
            self._inputs, self._control, failed=self._scheduler.failed, now_s=now_s
        )
