"""Settings of the control side: how a chunk is played, limited and halted."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class MotionLimits:
    """Largest speeds and accelerations of the end effector.

    The norm is scaled and the direction kept. Units: m/s, rad/s, m/s2, rad/s2.
    """

    max_linear_speed: float = 0.25
    max_angular_speed: float = 0.8
    max_linear_accel: float = 1.0
    max_angular_accel: float = 3.0


@dataclass(frozen=True)
class Workspace:
    """A box in the command frame that the end effector stays in.

    Attributes:
        minimum, maximum: Corners, metres.
        margin_m: How far outside the box latches ``failed``.
    """

    minimum: tuple[float, float, float]
    maximum: tuple[float, float, float]
    margin_m: float = 0.05


@dataclass(frozen=True)
class ControlSettings:
    """How a chunk becomes commands.

    Attributes:
        action_period_s: Time that one action takes at any control rate, seconds.
        execute_steps: Actions played before a new inference is due.
        blending: ``none``, ``crossfade`` or ``ensemble``.
        blend_steps: Length of a crossfade in actions.
        frame: ``base`` or ``ee``: the frame of the chunk's actions.
        command_type: ``twist`` or ``pose``.
        command_frame: Frame of the commands; ``ee_pose`` must be in it.
        limits: Largest speeds and accelerations.
        workspace: Box that is enforced, or None.
        observation_timeout_s: Oldest input that may still be used, by stamp and by receive time.
        max_chunk_age_s: Oldest observation whose chunk is still played when it comes, seconds.
        max_camera_skew_s: Largest difference between the stamps of one observation's images.
        starvation_grace_s: How long the last twist is held when the chunk has ended.
        halt_zero_duration_s: How long zeros are published after the arm has decelerated.
        max_consecutive_failures: Inference errors in a row that latch ``failed``.
        robot_command_timeout_s: How long the robot holds a command, seconds; 0 for ever.
        allow_other_commanders: Whether somebody else may command the robot at the same time.
        control_rate_hz: Expected rate of ticks; the clock says how long each one really took.
    """

    action_period_s: float
    execute_steps: int
    blending: str = 'crossfade'
    blend_steps: int = 2
    frame: str = 'base'
    command_type: str = 'twist'
    command_frame: str = 'base_link'
    limits: MotionLimits = field(default_factory=MotionLimits)
    workspace: Workspace | None = None
    observation_timeout_s: float = 0.5
    max_chunk_age_s: float = 2.0
    max_camera_skew_s: float = 0.1
    starvation_grace_s: float = 0.1
    halt_zero_duration_s: float = 0.5
    max_consecutive_failures: int = 3
    robot_command_timeout_s: float = 0.1
    allow_other_commanders: bool = False
    control_rate_hz: float = 50.0
