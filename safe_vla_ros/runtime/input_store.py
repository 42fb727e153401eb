"""The newest message of every input, its age, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from safe_vla_ros.errors import shortened
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.halt_reasons import HaltReason, invalid, missing, stale
from safe_vla_ros.runtime.image_decoding import AnyImage
from safe_vla_ros.runtime.inference import InputSnapshot
from safe_vla_ros.types import NANOSECONDS, MessageHeader

FUTURE_TOLERANCE_S = 0.1
"""How far ahead of the clock a stamp may be."""

NO_HEADER = MessageHeader(0)


@dataclass
class CameraInput:
    """The newest image of a camera and what was counted about the stream."""

    image: AnyImage | None = None
    header: MessageHeader = NO_HEADER
    received_s: float = 0.0
    used: bool = False
    received: int = 0
    dropped: int = 0
    gap: bool = False

    @property
    def stamp_s(self) -> float:
        """Stamp of the image, seconds."""
        return self.header.stamp_s


@dataclass(frozen=True)
class StateInput:
    """What the newest message says about the pose or a joint.

    Attributes:
        stamp_s: When it was made, seconds.
        received_s: When it came, seconds.
        problem: Why it cannot be used, as a sentence; empty when it can.
    """

    stamp_s: float
    received_s: float
    problem: str = ''


class InputStore:
    """Keeps the newest message of every input in use. Not thread-safe."""

    def __init__(
        self, cameras: Sequence[str], joint_names: Sequence[str], *, pose_in_use: bool
    ) -> None:
        self.cameras = {name: CameraInput() for name in cameras}
        self.joint_names = tuple(joint_names)
        self.pose_in_use = pose_in_use
        self.pose: Pose | None = None
        self.joints: dict[str, float] = {}
        self._pose_input: StateInput | None = None
        self._joint_inputs: dict[str, StateInput] = {}

    def put_image(
        self,
        camera: str,
        image: AnyImage,
        *,
        header: MessageHeader,
        now_s: float,
        timeout_s: float,
    ) -> None:
        """Store an image of one of the cameras; undecoded."""
        slot = self.cameras[camera]
        if slot.image is not None:
            slot.dropped += not slot.used
            slot.gap = slot.gap or header.stamp_s - slot.stamp_s > timeout_s
        slot.image, slot.header, slot.received_s = image, header, now_s
        slot.used = False
        slot.received += 1

    def put_pose(
        self,
        position: ArrayLike,
        quaternion_xyzw: ArrayLike,
        *,
        header: MessageHeader,
        now_s: float,
        command_frame: str,
    ) -> None:
        """Store the pose of the end effector, or why it cannot be used."""
        position_m = np.array(position, dtype=np.float64)
        quaternion = np.array(quaternion_xyzw, dtype=np.float64)
        length = math.hypot(*quaternion)
        problem = ''
        if header.frame_id != command_frame:
            problem = (
                f"ee_pose is in frame '{shortened(header.frame_id)}'; it must be in command_frame "
                f"'{command_frame}'"
            )
        elif not (np.isfinite(position_m).all() and math.isfinite(length)):
            problem = 'ee_pose holds a value that is not finite'
        elif not 0.9 < length < 1.1:
            problem = f'ee_pose has a quaternion of length {length:.3g}; it must be 1'
        self._pose_input = StateInput(header.stamp_s, now_s, problem)
        self.pose = None if problem else Pose(position_m, quaternion / length)

    def put_joints(
        self, names: Sequence[str], positions: ArrayLike, *, header: MessageHeader, now_s: float
    ) -> None:
        """Store the positions of the joints in use that a message names, or why it has none.

        Several publishers may have some joints each, so every joint has an age and a problem of its
        own. Some publish velocities only: a message without positions says nothing.
        """
        values = np.asarray(positions, dtype=np.float64).ravel().tolist()
        if not values:
            return
        counts = ''
        if len(values) != len(names):
            counts = f'{len(names)} names and {len(values)} positions; each name needs one'
            values = [math.nan] * len(names)
        for name, value in zip(names, values, strict=True):
            if name not in self.joint_names:
                continue
            problem = ''
            if counts:
                problem = f"joint_states with joint '{name}' has {counts}"
            elif not math.isfinite(value):
                problem = f"joint_states holds a position of joint '{name}' that is not finite"
            self.joints[name] = value
            self._joint_inputs[name] = StateInput(header.stamp_s, now_s, problem)

    def missing(self) -> HaltReason | None:
        """Return which input in use has never come, or None."""
        for name, slot in self.cameras.items():
            if slot.image is None:
                return missing(f"image of camera '{name}'")
        if self.pose_in_use and self._pose_input is None:
            return missing('ee_pose')
        for name in self.joint_names:
            if name not in self._joint_inputs:
                return missing(f"joint_states with joint '{name}'")
        return None

    def unusable(self, now_s: float, timeout_s: float) -> HaltReason | None:
        """Return why an input in use must not be used, or None.

        Args:
            now_s: The clock's time.
            timeout_s: Largest age by header stamp and by receive time, seconds.
        """
        for name, slot in self.cameras.items():
            if slot.image is not None:
                text = _age_problem(slot.stamp_s, slot.received_s, now_s, timeout_s)
                if text:
                    return stale(f"camera '{name}'", text)
        for name, state in self._states_in_use().items():
            if state.problem:
                return invalid(state.problem)
            text = _age_problem(state.stamp_s, state.received_s, now_s, timeout_s)
            if text:
                return stale(name, text)
        return None

    def not_fresh(self, fresh_after_s: float, max_skew_s: float) -> str:
        """Return why the newest messages make no new observation, or an empty text.

        Args:
            fresh_after_s: Everything must have been made at this time or later.
            max_skew_s: Largest difference between the images' stamps, seconds.
        """
        for name, slot in self.cameras.items():
            if slot.stamp_s < fresh_after_s:
                return f"camera '{name}' has not sent a new image since the halt"
            if slot.used:
                return f"camera '{name}' has not sent a new image since the last inference"
        for name, state in self._states_in_use().items():
            if state.stamp_s < fresh_after_s:
                return f'no new {name} since the halt'
        if self.skew_s() > max_skew_s:
            return f'the images are further apart than max_camera_skew_s ({max_skew_s:g} s)'
        return ''

    def skew_s(self) -> float:
        """Return the difference between the newest and the oldest image's stamp, seconds."""
        stamps = [slot.header.stamp_ns for slot in self.cameras.values() if slot.image is not None]
        return (max(stamps) - min(stamps)) / NANOSECONDS if stamps else 0.0

    def had_gap(self) -> bool:
        """Tell whether some camera was silent for longer than the timeout since the last call."""
        gap = any(slot.gap for slot in self.cameras.values())
        for slot in self.cameras.values():
            slot.gap = False
        return gap

    def take(self, instruction: str) -> InputSnapshot:
        """Return the newest messages for an inference, and note that they have been used."""
        images = {name: slot.image for name, slot in self.cameras.items() if slot.image is not None}
        headers = {name: self.cameras[name].header for name in images}
        for name in images:
            self.cameras[name].used = True
        return InputSnapshot(images, headers, self.pose, dict(self.joints), instruction)

    def ages_s(self, now_s: float) -> dict[str, float]:
        """Return the age by header stamp of every input in use that has come, seconds."""
        ages = {
            name: now_s - slot.stamp_s
            for name, slot in self.cameras.items()
            if slot.image is not None
        }
        if self.pose_in_use and self._pose_input is not None:
            ages['ee_pose'] = now_s - self._pose_input.stamp_s
        stamps = [state.stamp_s for state in self._joint_inputs.values()]
        if stamps:
            ages['joint_states'] = now_s - min(stamps)
        return ages

    def forget(self) -> None:
        """Drop every message: the clock jumped, and their stamps mean nothing any more."""
        for slot in self.cameras.values():
            slot.image, slot.used, slot.gap = None, False, False
        self.pose, self._pose_input = None, None
        self.joints.clear()
        self._joint_inputs.clear()

    def _states_in_use(self) -> dict[str, StateInput]:
        """Return what came of the pose and of the joints in use, by how a sentence names it."""
        states = {}
        if self.pose_in_use and self._pose_input is not None:
            states['ee_pose'] = self._pose_input
        for name in self.joint_names:
            if name in self._joint_inputs:
                states[f"joint_states with joint '{name}'"] = self._joint_inputs[name]
        return states


def _age_problem(stamp_s: float, received_s: float, now_s: float, timeout_s: float) -> str:
    """Return what is wrong with a message's times; the same text as long as the same is wrong."""
    age_s = now_s - stamp_s
    if stamp_s <= 0.0:
        return 'has a zero stamp; every message needs its time of capture'
    if age_s < -FUTURE_TOLERANCE_S:
        return f'has a stamp more than {FUTURE_TOLERANCE_S:g} s in the future; clocks must agree'
    if age_s > timeout_s:
        return f'has a stamp older than observation_timeout_s ({timeout_s:g} s)'
    if now_s - received_s > timeout_s:
        return f'has sent nothing for longer than observation_timeout_s ({timeout_s:g} s)'
    return ''
