"""Settings around the policy: how a chunk is played, limited and halted, and the node's own."""

from __future__ import annotations

from dataclasses import dataclass, field

from safe_vla_ros.parameter_types import Change, parameter


@dataclass(frozen=True)
class MotionLimits:
    """Largest speeds and accelerations of the end effector: m/s, rad/s, m/s2, rad/s2.

    The norm is scaled and the direction kept.
    """

    max_linear_speed: float = field(
        default=0.25,
        metadata=parameter(
            'max_linear_speed',
            "Maximum speed. The direction is kept. Default: the policy's own if it gives one.",
            own='limits.max_linear_speed',
            unit='m/s',
            maximum=10.0,
            above=0.0,
            change=Change.DYNAMIC,
        ),
    )
    max_angular_speed: float = field(
        default=0.8,
        metadata=parameter(
            'max_angular_speed',
            "Maximum angular speed. The axis is kept. Default: the policy's own if it gives one.",
            own='limits.max_angular_speed',
            unit='rad/s',
            maximum=50.0,
            above=0.0,
            change=Change.DYNAMIC,
        ),
    )
    max_linear_accel: float = field(
        default=1.0,
        metadata=parameter(
            'max_linear_accel',
            "Maximum acceleration, also of a halt. Default: the policy's own if it gives one.",
            own='limits.max_linear_accel',
            unit='m/s2',
            maximum=100.0,
            above=0.0,
            change=Change.DYNAMIC,
        ),
    )
    max_angular_accel: float = field(
        default=3.0,
        metadata=parameter(
            'max_angular_accel',
            "Maximum angular acceleration, also of a halt. Default: the policy's own if it gives "
            'one.',
            own='limits.max_angular_accel',
            unit='rad/s2',
            maximum=500.0,
            above=0.0,
            change=Change.DYNAMIC,
        ),
    )


@dataclass(frozen=True)
class Workspace:
    """A box in the command frame that the end effector stays in, metres."""

    minimum: tuple[float, float, float] = field(
        metadata=parameter(
            'workspace_min',
            'Lowest corner of the box, x y z in command_frame. Unset: no box.',
            unit='m',
            range_note='3 numbers, each below workspace_max',
            change=Change.DYNAMIC,
        )
    )
    maximum: tuple[float, float, float] = field(
        metadata=parameter(
            'workspace_max',
            'Highest corner of the box, x y z in command_frame. Unset: no box.',
            unit='m',
            range_note='3 numbers, each above workspace_min',
            change=Change.DYNAMIC,
        )
    )
    margin_m: float = field(
        default=0.05,
        metadata=parameter(
            'workspace_margin_m',
            'Distance outside the box that leads to the state failed.',
            unit='m',
            minimum=0.0,
            maximum=1.0,
            change=Change.DYNAMIC,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ControlSettings:
    """How a chunk becomes commands.

    A field without a parameter says here what it is.

    Attributes:
        limits: Largest speeds and accelerations.
        workspace: Box that is enforced, or None.
    """

    frame: str = field(
        metadata=parameter(
            'action.frame',
            'Frame of the actions: the command frame (base) or the end effector (ee).',
            own='frame',
            choices=('base', 'ee'),
            after='action.rotation',
        )
    )
    control_rate_hz: float = field(
        default=50.0,
        metadata=parameter(
            'control_rate_hz', 'Rate of the commands.', unit='Hz', minimum=1.0, maximum=200.0
        ),
    )
    action_period_s: float = field(
        metadata=parameter(
            'action_period_s',
            'Duration of one action, the training step. It is the same at any control rate.',
            own='action_period_s',
            unit='s',
            minimum=0.005,
            maximum=1.0,
        )
    )
    execute_steps: int = field(
        metadata=parameter(
            'execute_steps',
            'Actions to play before the next inference is due.',
            own='execute_steps',
            minimum=1,
            range_note='1 to the chunk size',
            change=Change.DYNAMIC,
        )
    )
    blending: str = field(
        default='crossfade',
        metadata=parameter(
            'blending',
            'How a new chunk takes over from the old one. crossfade mixes the two linearly. '
            'ensemble averages every chunk that still has a plan for the moment, with weights '
            'exp(-0.01 i), i = 0 the oldest. cogact_ensemble averages the newest '
            'ensemble_horizon of them with weights exp(0.1 cos(a, newest)), so that an action a '
            'that contradicts the newest counts less.',
            choices=('none', 'crossfade', 'ensemble', 'cogact_ensemble'),
            change=Change.DYNAMIC,
        ),
    )
    blend_steps: int = field(
        default=2,
        metadata=parameter(
            'blend_steps',
            'Length of a crossfade in actions.',
            minimum=1,
            range_note='1 to the chunk size',
            change=Change.DYNAMIC,
        ),
    )
    ensemble_horizon: int = field(
        default=7,
        metadata=parameter(
            'ensemble_horizon',
            'Newest chunks that cogact_ensemble averages. Published: 7 on a WidowX (Bridge), 2 on '
            "Google's robot.",
            minimum=1,
            maximum=100,
            change=Change.DYNAMIC,
        ),
    )
    command_type: str = field(
        default='twist',
        metadata=parameter(
            'command_type',
            'Publish velocities (twist) or targets (pose).',
            choices=('twist', 'pose'),
        ),
    )
    command_frame: str = field(
        default='base_link',
        metadata=parameter(
            'command_frame',
            'Frame of the commands. ee_pose must use it.',
            range_note='a frame name',
        ),
    )
    observation_timeout_s: float = field(
        default=0.5,
        metadata=parameter(
            'observation_timeout_s',
            'Maximum age of an input, by header stamp and by receive time.',
            unit='s',
            maximum=10.0,
            above=0.0,
            change=Change.DYNAMIC,
        ),
    )
    max_chunk_age_s: float = field(
        default=2.0,
        metadata=parameter(
            'max_chunk_age_s',
            'Maximum age of the observation of a chunk that is still played.',
            unit='s',
            maximum=600.0,
            above=0.0,
            change=Change.DYNAMIC,
        ),
    )
    max_camera_skew_s: float = field(
        default=0.1,
        metadata=parameter(
            'max_camera_skew_s',
            "Maximum difference between the images' stamps.",
            unit='s',
            minimum=0.0,
            maximum=10.0,
            change=Change.DYNAMIC,
        ),
    )
    starvation_grace_s: float = field(
        default=0.1,
        metadata=parameter(
            'starvation_grace_s',
            'How long to hold the last twist after a chunk has ended.',
            unit='s',
            minimum=0.0,
            maximum=1.0,
            change=Change.DYNAMIC,
        ),
    )
    halt_zero_duration_s: float = field(
        default=0.5,
        metadata=parameter(
            'halt_zero_duration_s',
            'How long to publish zeros once the arm has stopped.',
            unit='s',
            minimum=0.0,
            maximum=5.0,
            change=Change.DYNAMIC,
        ),
    )
    max_consecutive_failures: int = field(
        default=3,
        metadata=parameter(
            'max_consecutive_failures',
            'Failed inferences in a row that lead to the state failed.',
            minimum=1,
            maximum=20,
            change=Change.DYNAMIC,
        ),
    )
    robot_command_timeout_s: float = field(
        default=0.1,
        metadata=parameter(
            'robot_command_timeout_s',
            'How long the robot holds a command before it stops by itself. 0: it never stops. '
            'Less than two control periods count as two.',
            unit='s',
            minimum=0.0,
            maximum=5.0,
        ),
    )
    allow_other_commanders: bool = field(
        default=False,
        metadata=parameter(
            'allow_other_commanders',
            'Let somebody else command the robot on the same topic at the same time.',
        ),
    )
    limits: MotionLimits = field(default_factory=MotionLimits)
    workspace: Workspace | None = None


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What only the node needs."""

    policy: str = field(
        default='mini_libero',
        metadata=parameter(
            'policy',
            'The policy to load: a directory, the name of a bundled policy, or a model hub '
            'reference.',
            range_note='a directory, a bundled name, or hf:org/name@<40-hex commit>',
            change=Change.READ_ONLY,
        ),
    )
    inference_threads: int = field(
        default=0,
        metadata=parameter(
            'inference_threads',
            'CPU threads for one inference. 0 uses all cores but one, at most 4.',
            minimum=0,
            maximum=256,
            after='dtype',
        ),
    )
    image_transport: str = field(
        default='raw',
        metadata=parameter(
            'image_transport',
            'Subscribe to <camera>/image_raw (raw) or <camera>/image_raw/compressed (compressed).',
            choices=('raw', 'compressed'),
            after='cameras',
        ),
    )
    instruction: str = field(
        default='',
        metadata=parameter(
            'instruction',
            'Initial instruction. If it is empty, the robot waits for the topic.',
            after='image_transport',
        ),
    )
    ee_frame: str = field(
        default='',
        metadata=parameter(
            'ee_frame',
            'Frame of the end effector, looked up in tf from command_frame. Empty: use the topic '
            'ee_pose.',
            range_note='a frame name, or empty',
            after='command_frame',
        ),
    )
    dry_run: bool = field(
        default=False,
        metadata=parameter('dry_run', 'Do everything but publish commands.', after='ee_frame'),
    )
    hardware_id: str = field(
        default='none',
        metadata=parameter(
            'hardware_id',
            'Serial number or name of the robot in the diagnostics.',
            range_note='not empty',
            after='dry_run',
        ),
    )
    allow_unknown_parameters: bool = field(
        default=False,
        metadata=parameter(
            'allow_unknown_parameters',
            'Warn about unknown parameters instead of failing. For parameter files shared with '
            'other nodes.',
            after='hardware_id',
        ),
    )
    saliency_max_rate_hz: float = field(
        default=5.0,
        metadata=parameter(
            'saliency.max_rate_hz',
            'Maximum rate of the overlay images.',
            unit='Hz',
            minimum=0.1,
            maximum=30.0,
            change=Change.DYNAMIC,
            after='pruning.forecast_moved',
        ),
    )
    saliency_alpha: float = field(
        default=0.5,
        metadata=parameter(
            'saliency.alpha',
            'Opacity of the heat in the overlay images.',
            minimum=0.0,
            maximum=1.0,
            change=Change.DYNAMIC,
            after='saliency.max_rate_hz',
        ),
    )
