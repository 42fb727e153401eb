"""Whether anything may move, and if not, why: the first reason in a fixed order."""

from __future__ import annotations

from safe_vla_ros.runtime.halt_reasons import (
    DEACTIVATING,
    NO_INSTRUCTION,
    PAUSED,
    HaltReason,
    workspace,
)
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.limits import distance_outside
from safe_vla_ros.runtime.settings import ControlSettings


class MotionPermission:
    """What users and inputs have to say against moving. Not thread-safe.

    Attributes:
        active: Whether commands are wanted at all.
        closing: Whether the halt before deactivation or exit has begun.
        paused: Whether somebody paused.
        instruction: The task in words; empty when there is none.
        breach: How the workspace was left, latched; None otherwise.
    """

    def __init__(self, instruction: str) -> None:
        self.active = False
        self.closing = False
        self.paused = False
        self.instruction = instruction
        self.breach: HaltReason | None = None

    def reason(
        self,
        inputs: InputStore,
        control: ControlSettings,
        *,
        failed: HaltReason | None,
        now_s: float,
    ) -> HaltReason | None:
        """Return why nothing may move or be inferred, or None.

        Args:
            inputs: The newest messages.
            control: Timeouts and the workspace.
            failed: Why inference has failed for good; None otherwise.
            now_s: The clock's time.
        """
        if self.closing:
            return DEACTIVATING
        if failed or self.breach:
            return failed or self.breach
        if self.paused:
            return PAUSED
        if not self.instruction:
            return NO_INSTRUCTION
        reason = inputs.missing() or inputs.unusable(now_s, control.observation_timeout_s)
        return reason or self._check_workspace(inputs, control)

    def _check_workspace(self, inputs: InputStore, control: ControlSettings) -> HaltReason | None:
        box, pose = control.workspace, inputs.pose
        if box is None or pose is None:
            return None
        outside_m = distance_outside(pose.position_m, box)
        if outside_m <= box.margin_m:
            return None
        self.breach = workspace(outside_m, box.margin_m)
        return self.breach
