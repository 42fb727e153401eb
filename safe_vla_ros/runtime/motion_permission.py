"""Whether anything may move, and if not, why: the first reason in a fixed order."""

from __future__ import annotations

from safe_vla_ros.runtime.halt_reasons import (
    DEACTIVATING,
    NO_INSTRUCTION,
    PAUSED,
    HaltReason,
    other_commander,
    workspace,
)
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.limits import distance_outside
from safe_vla_ros.runtime.settings import ControlSettings

OTHER_COMMANDER_S = 1.0
"""How long a command of somebody else counts."""


class MotionPermission:
    """What users and inputs have to say against moving. Not thread-safe.

    Attributes:
        active: Whether commands are wanted at all.
        closing: Whether the halt before deactivation or exit has begun.
        paused: Whether somebody paused.
        instruction: The task in words; empty when there is none.
        breach: How the workspace was left, latched; None otherwise.
        conflict: Who else commanded the robot while it moved, latched; None otherwise.
    """

    def __init__(self, instruction: str) -> None:
        self.active = False
        self.closing = False
        self.paused = False
        self.instruction = instruction
        self.breach: HaltReason | None = None
        self.conflict: HaltReason | None = None
        self._other: tuple[HaltReason, float] | None = None

    def unlatch(self) -> None:
        """Forget what is latched; what is still so is found again."""
        self.breach = self.conflict = None

    def hear_other(self, topic: str, steady_s: float, *, in_motion: bool) -> None:
        """Take note of a command that somebody else sent.

        Args:
            topic: Where.
            steady_s: When, in steady time.
            in_motion: Whether this node was commanding the robot, too; then it is latched.
        """
        self._other = other_commander(topic), steady_s
        if in_motion and not (self.paused or self.closing):
            self.conflict = self._other[0]

    def other_commands(self, steady_s: float) -> HaltReason | None:
        """Return the reason that somebody else commanded the robot a moment ago, or None."""
        if self._other is None or steady_s - self._other[1] > OTHER_COMMANDER_S:
            return None
        return self._other[0]

    def reason(
        self,
        inputs: InputStore,
        control: ControlSettings,
        *,
        failed: HaltReason | None,
        clock: HaltReason | None,
        now_s: float,
        steady_s: float,
    ) -> HaltReason | None:
        """Return why nothing may move or be inferred, or None.

        Args:
            inputs: The newest messages.
            control: Timeouts and the workspace.
            failed: Why inference has failed for good; None otherwise.
            clock: What is wrong with the clock; None when nothing is.
            now_s: The clock's time.
            steady_s: Steady time.
        """
        if self.closing:
            return DEACTIVATING
        latched = failed or self.breach or self.conflict
        if latched:
            return latched
        if self.paused:
            return PAUSED
        # Where nothing is asked for, a clock that has stopped does no harm: between two episodes a
        # simulator may stand still. One that never began is told: nobody may have started it.
        harmless = not self.instruction and now_s > 0.0
        reason = self.other_commands(steady_s) or (None if harmless else clock)
        if reason:
            return reason
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
