"""What a robot needs around a policy, without threads and ROS."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from numpy.typing import ArrayLike

from safe_vla_ros.errors import ObservationError
from safe_vla_ros.runtime.clock_watch import ClockReading
from safe_vla_ros.runtime.controller import Command, Controller
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.halt_reasons import (
    DEACTIVATING,
    NEW_INSTRUCTION,
    NO_INSTRUCTION,
    PAUSED,
    RESET,
    HaltReason,
    clock_jump,
    clock_stopped,
)
from safe_vla_ros.runtime.image_decoding import AnyImage, Fallback
from safe_vla_ros.runtime.inference import InferenceJob, InferenceOutcome, InferenceReport, infer
from safe_vla_ros.runtime.inference_scheduler import InferenceScheduler
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.instructions import clean_instruction
from safe_vla_ros.runtime.motion_permission import MotionPermission
from safe_vla_ros.runtime.planned_path import planned_path
from safe_vla_ros.runtime.proprio import check_layout, joints_in_use, needs_pose
from safe_vla_ros.runtime.settings import ControlSettings
from safe_vla_ros.runtime.states import RuntimeState, StateName
from safe_vla_ros.runtime.statistics import RuntimeStatistics, take_statistics
from safe_vla_ros.runtime.ticks import TickClock
from safe_vla_ros.types import Clock, MessageHeader, Policy, PruningSettings


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
            pose_in_use=needs_pose(control, proprio_layout),
        )
        self._controller = Controller()
        self._scheduler = InferenceScheduler(policy)
        self._ticks = self._new_tick_clock()
        self._clock_halt: HaltReason | None = None
        self._permission = MotionPermission(clean_instruction(initial_instruction))

    # Inputs: only stored.

    def put_image(self, camera: str, image: AnyImage, *, header: MessageHeader) -> None:
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
            self._inputs.put_image(camera, image, header=header, now_s=now_s, timeout_s=timeout_s)

    def put_pose(
        self, position: ArrayLike, quaternion_xyzw: ArrayLike, *, header: MessageHeader
    ) -> None:
        """Store the newest pose of the end effector: [3] in metres, [4] as x y z w."""
        with self._lock:
            self._inputs.put_pose(
                position,
                quaternion_xyzw,
                header=header,
                now_s=self._clock.now_s(),
                command_frame=self._control.command_frame,
            )

    def put_joints(
        self, names: Sequence[str], positions: ArrayLike, *, header: MessageHeader
    ) -> None:
        """Store positions of joints in use by name, radians or metres.

        Several publishers may have some joints each. Without positions a message says nothing;
        with another number of positions than names, the joints that it names become unusable.
        """
        with self._lock:
            now_s = self._clock.now_s()
            self._inputs.put_joints(names, positions, header=header, now_s=now_s)

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

    def activate(self, *, simulated_time: bool | None = None) -> None:
        """Begin to work; nothing is commanded before the first chunk.

        Args:
            simulated_time: Whether the clock may go at any rate and stand still, until the next
                activation. By default it may where there is no steady clock beside it.
        """
        with self._lock:
            lock = self._permission
            lock.active, lock.closing = True, False
            lock.unlatch()
            self._ticks = self._new_tick_clock(simulated_time)
            self._clock_halt = None
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
            self._permission.unlatch()
            self._begin_epoch('service', RESET)

    def apply(
        self, control: ControlSettings | None = None, pruning: PruningSettings | None = None
    ) -> None:
        """Change settings: control at the next tick, pruning from the next inference on."""
        with self._lock:
            self._control = control or self._control
            self._pruning = pruning or self._pruning
            self._inputs.pose_in_use = needs_pose(self._control, self._layout)

    def hear_other_commander(self, topic: str) -> None:
        """Take note that a command of somebody else came in on the command topic."""
        with self._lock:
            in_motion = self._permission.active and not self._controller.silent
            steady_s = self._steady.now_s()
            self._permission.hear_other(topic, steady_s, in_motion=in_motion)

    @property
    def other_commander(self) -> str:
        """Who else commanded the robot within the last second, as a sentence; empty if nobody."""
        with self._lock:
            reason = self._permission.other_commands(self._steady.now_s())
            return reason.text if reason else ''

    @property
    def obstacle(self) -> str:
        """What stands against moving now, as a sentence; empty when nothing does."""
        with self._lock:
            reason = self._blocked(self._clock.now_s())
            return reason.text if reason else ''

    # Control.

    def clock_stands_still(self) -> bool:
        """Look at the clock between two ticks: whether ticks must go by steady time now."""
        with self._lock:
            return self._permission.active and self._ticks.stands_still()

    def tick(self) -> Command | None:
        """Say what to command now; None is silence."""
        with self._lock:
            if not self._permission.active:
                return None
            tick = self._ticks.tick(closing=self._permission.closing)
            self._note_clock(tick.clock, tick.now_s)
            if tick.stalled:
                hold_s = self._control.robot_command_timeout_s
                self._controller.stall(tick.gap_s, hold_s, tick.now_s)
            blocked = self._blocked(tick.now_s)
            return self._controller.tick(tick, blocked, self._inputs.pose, self._control)

    @property
    def state(self) -> RuntimeState:
        """What the last tick found, and why no chunk can be had where that is known."""
        with self._lock:
            state = self._controller.state
            more = self._scheduler.waits_for or self._scheduler.too_late
            if state.name in {StateName.WAITING, StateName.STARVED} and more:
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
        """Take an inference that is due, with the newest inputs.

        Returns:
            The job; None when none is due, one is running, or the inputs do not make a fresh
            observation.
        """
        with self._lock:
            now_s = self._clock.now_s()
            if not self._permission.active or self._blocked(now_s) is not None:
                self._scheduler.waits_for = ''
                return None
            return self._scheduler.begin(
                self._inputs,
                self._controller,
                instruction=self._permission.instruction,
                now_s=now_s,
                control=self._control,
                pruning=self._pruning,
            )

    def run_inference(self, job: InferenceJob) -> InferenceOutcome:
        """Decode the images and run the policy; takes the model's time and never raises."""
        return infer(
            self._policy,
            job,
            layout=self._layout,
            gripper_joint_names=self._gripper_joint_names,
            fallback=self._fallback,
        )

    def finish_inference(self, outcome: InferenceOutcome) -> InferenceReport:
        """Play the chunk if nothing has made it worthless, and say what became of it."""
        with self._lock:
            return self._scheduler.take_in(
                outcome, self._controller, self._clock.now_s(), self._control
            )

    def _begin_epoch(self, memory_reason: str, halt: HaltReason) -> None:
        self._scheduler.episodes.begin_epoch(memory_reason)
        self._controller.halt(halt, self._clock.now_s())

    def _new_tick_clock(self, simulated_time: bool | None = None) -> TickClock:
        if simulated_time is None:
            simulated_time = self._steady is self._clock
        return TickClock(
            self._clock,
            self._steady,
            rate_hz=self._control.control_rate_hz,
            hold_s=self._control.robot_command_timeout_s,
            simulated=simulated_time,
        )

    def _note_clock(self, reading: ClockReading, now_s: float) -> None:
        self._clock_halt = clock_stopped(now_s > 0.0) if reading.standstill_s else None
        if reading.jump_s:
            self._scheduler.episodes.begin_epoch('episode_start')
            self._inputs.forget()
            self._controller.forget_time(clock_jump(reading.jump_s), now_s)

    def _blocked(self, now_s: float) -> HaltReason | None:
        return self._permission.reason(
            self._inputs,
            self._control,
            failed=self._scheduler.failed,
            clock=self._clock_halt,
            now_s=now_s,
            steady_s=self._steady.now_s(),
        )
