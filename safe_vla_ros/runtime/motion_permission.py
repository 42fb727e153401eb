"""Whether anything may move, and if not, why: the first reason in a fixed order."""

from __future__ import annotations

from safe_vla_ros.runtime.halting import HaltReason
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.limits import distance_outside
from safe_vla_ros.runtime.settings import ControlSettings

PAUSED = HaltReason('paused', 'paused', 'paused')
DEACTIVATING = HaltReason('deactivate', 'halting', 'deactivating')
NO_INSTRUCTION = HaltReason('no_instruction', 'waiting', 'no instruction')
NEW_INSTRUCTION = HaltReason('instruction', 'halting', 'a new instruction began an episode')
RESET = HaltReason('reset', 'halting', 'the episode was reset')
TIME_JUMP = HaltReason('time_jump', 'halting', 'the clock jumped back')


class MotionPermission:
    """What users and inputs have to say against moving. Not thread-safe.

    Attributes:
        active: Whether commands are wanted at all.
        closing: Whether the halt before deactivation or exit has begun.
        paused: Whether somebody paused.
        instruction: The task in words; empty when there is none.
        breach: How the workspace was left, latched; empty otherwise.
    """

    def __init__(self, instruction: str) -> None:
        self.active = False
        self.closing = False
        self.paused = False
        self.instruction = instruction
        self.breach = ''

    def reason(
        self, inputs: InputStore, control: ControlSettings, *, failed: str, now_s: float
    ) -> HaltReason | None:
        """Return why nothing may move or be inferred, or None.

        Args:
            inputs: The newest messages.
            control: Timeouts and the workspace.
            failed: Why inference has failed for good; empty otherwise.
            now_s: The clock's time.
        """
        if self.closing:
            return DEACTIVATING
        if failed:
            return HaltReason('failures', 'failed', failed)
        if self.breach:
            return HaltReason('workspace', 'failed', self.breach)
        if self.paused:
            return PAUSED
        if not self.instruction:
            return NO_INSTRUCTION
        reason = inputs.missing() or inputs.unusable(now_s, control.observation_timeout_s)
        return reason or self._check_workspace(inputs, control)

    def _check_workspace(self, inputs: InputStore, control: ControlSettings) -> HaltReason | None:
        workspace, pose = control.workspace, inputs.pose
        if workspace is None or pose is None:
            return None
        outside_m = distance_outside(pose.position_m, workspace)
        if outside_m <= workspace.margin_m:
            return None
        self.breach = (
            f'the end effector is {outside_m:.3f} m outside the workspace; '
            f'workspace_margin_m is {workspace.margin_m:g}'
        )
        return HaltReason('workspace', 'failed', self.breach)
