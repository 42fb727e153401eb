"""The newest message of every input, its age, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from safe_vla_ros.errors import shortened
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.halting import HaltReason
from safe_vla_ros.runtime.image_decoding import AnyImage
from safe_vla_ros.runtime.inference import Snapshot

FUTURE_TOLERANCE_S = 0.1
"""How far ahead of the clock a stamp may be."""


@dataclass
class CameraInput:
    """The newest image of a camera and what was counted about the stream."""

    image: AnyImage | None = None
    stamp_s: float = 0.0
    received_s: float = 0.0
    used: bool = False
    received: int = 0
    dropped: int = 0
    gap: bool = False


@dataclass(frozen=True)
class Stamped:
    """When a value was made and when it came, seconds."""

    stamp_s: float
    received_s: float


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
        self._pose_times: Stamped | None = None
        self._pose_problem = ''
        self._joint_times: dict[str, Stamped] = {}
        self._joints_problem = ''

    def put_image(
        self, camera: str, image: AnyImage, *, stamp_s: float, now_s: float, timeout_s: float
    ) -> None:
        """Store an image of one of the cameras; undecoded."""
        slot = self.cameras[camera]
        if slot.image is not None:
            slot.dropped += not slot.used
            slot.gap = slot.gap or stamp_s - slot.stamp_s > timeout_s
        slot.image, slot.stamp_s, slot.received_s = image, stamp_s, now_s
        slot.used = False
        slot.received += 1

    def put_pose(
        self,
        position: ArrayLike,
        quaternion_xyzw: ArrayLike,
        *,
        stamp_s: float,
        now_s: float,
        frame_id: str,
        command_frame: str,
    ) -> None:
        """Store the pose of the end effector, or why it cannot be used."""
        position_m = np.array(position, dtype=np.float64)
        quaternion = np.array(quaternion_xyzw, dtype=np.float64)
        length = math.hypot(*quaternion)
        self._pose_times = Stamped(stamp_s, now_s)
        self.pose = None
        if frame_id != command_frame:
            self._pose_problem = (
                f"ee_pose is in frame '{shortened(frame_id)}'; it must be in command_frame "
                f"'{command_frame}'"
            )
        elif not (np.isfinite(position_m).all() and math.isfinite(length)):
            self._pose_problem = 'ee_pose holds a value that is not finite'
        elif not 0.9 < length < 1.1:
            self._pose_problem = f'ee_pose has a quaternion of length {length:.3g}; it must be 1'
        else:
            self._pose_problem = ''
            self.pose = Pose(position_m, quaternion / length)

    def put_joints(
        self, names: Sequence[str], positions: ArrayLike, *, stamp_s: float, now_s: float
    ) -> None:
        """Store the positions of the joints in use; several publishers may have some each."""
        values = np.asarray(positions, dtype=np.float64).ravel().tolist()
        if not values:
            return
        if len(values) != len(names):
            self._joints_problem = (
                f'joint_states has {len(names)} names and {len(values)} positions; '
                'each name needs one'
            )
            return
        self._joints_problem = ''
        times = Stamped(stamp_s, now_s)
        for name, value in zip(names, values, strict=True):
            if name in self.joint_names:
                self.joints[name] = value
                self._joint_times[name] = times

    def missing(self) -> HaltReason | None:
        """Return which input in use has never come, or None."""
        for name, slot in self.cameras.items():
            if slot.image is None:
                return HaltReason('missing', 'waiting', f"no image of camera '{name}' yet")
        if self.pose_in_use and self._pose_times is None:
            return HaltReason('missing', 'waiting', 'no ee_pose yet')
        for name in self.joint_names:
            if name not in self.joints:
                return HaltReason('missing', 'waiting', f"no joint_states with joint '{name}' yet")
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
                    return HaltReason('stale', 'stale', f"camera '{name}' {text}")
        return self._pose_unusable(now_s, timeout_s) or self._joints_unusable(now_s, timeout_s)

    def _pose_unusable(self, now_s: float, timeout_s: float) -> HaltReason | None:
        times = self._pose_times
        if not self.pose_in_use or times is None:
            return None
        if self._pose_problem:
            return HaltReason('invalid', 'stale', self._pose_problem)
        text = _age_problem(times.stamp_s, times.received_s, now_s, timeout_s)
        return HaltReason('stale', 'stale', f'ee_pose {text}') if text else None

    def _joints_unusable(self, now_s: float, timeout_s: float) -> HaltReason | None:
        if self.joint_names and self._joints_problem:
            return HaltReason('invalid', 'stale', self._joints_problem)
        for name in self.joint_names:
            if name not in self.joints:
                continue
            if not math.isfinite(self.joints[name]):
                text = f"joint_states holds a position of joint '{name}' that is not finite"
                return HaltReason('invalid', 'stale', text)
            times = self._joint_times[name]
            text = _age_problem(times.stamp_s, times.received_s, now_s, timeout_s)
            if text:
                return HaltReason('stale', 'stale', f"joint_states with joint '{name}' {text}")
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
        pose_times = self._pose_times if self.pose_in_use else None
        if pose_times is not None and pose_times.stamp_s < fresh_after_s:
            return 'no new ee_pose since the halt'
        if any(self._joint_times[name].stamp_s < fresh_after_s for name in self.joint_names):
            return 'no new joint_states since the halt'
        if self.skew_s() > max_skew_s + 1e-9:
            return f'the images are further apart than max_camera_skew_s ({max_skew_s:g} s)'
        return ''

    def skew_s(self) -> float:
        """Return the difference between the newest and the oldest image's stamp, seconds."""
        stamps = [slot.stamp_s for slot in self.cameras.values() if slot.image is not None]
        return max(stamps) - min(stamps) if stamps else 0.0

    def had_gap(self) -> bool:
        """Tell whether some camera was silent for longer than the timeout since the last call."""
        gap = any(slot.gap for slot in self.cameras.values())
        for slot in self.cameras.values():
            slot.gap = False
        return gap

    def take(self, instruction: str) -> Snapshot:
        """Return the newest messages for an inference, and note that they have been used."""
        images = {name: slot.image for name, slot in self.cameras.items() if slot.image is not None}
        stamps = {name: self.cameras[name].stamp_s for name in images}
        for name in images:
            self.cameras[name].used = True
        return Snapshot(images, stamps, self.pose, dict(self.joints), instruction)

    def ages_s(self, now_s: float) -> dict[str, float]:
        """Return the age by header stamp of every input in use that has come, seconds."""
        ages = {
            name: now_s - slot.stamp_s
            for name, slot in self.cameras.items()
            if slot.image is not None
        }
        if self.pose_in_use and self._pose_times is not None:
            ages['ee_pose'] = now_s - self._pose_times.stamp_s
        stamps = [
            self._joint_times[name].stamp_s for name in self.joint_names if name in self.joints
        ]
        if stamps:
            ages['joint_states'] = now_s - min(stamps)
        return ages

    def forget(self) -> None:
        """Drop every message: the clock jumped, and their stamps mean nothing any more."""
        for slot in self.cameras.values():
            slot.image, slot.used, slot.gap = None, False, False
        self.pose, self._pose_times, self._pose_problem = None, None, ''
        self.joints.clear()
        self._joint_times.clear()
        self._joints_problem = ''


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
