"""Values and seams that every part of the package shares. Needs numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from safe_vla_ros.parameter_types import LARGEST_INT, Change, parameter

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

NANOSECONDS = 1_000_000_000
"""In a second."""

REFRESH_REASONS = (
    'episode_start',
    'attention_shift',
    'instruction',
    'service',
    'observation_gap',
    'max_age',
    'parameters',
    'layout',
    'failure',
)
"""Why a key step renewed the method's memory (message of ``~/subtask_reset``)."""

PRUNING_STAGES = ('matching', 'taps', 'selection', 'gathers', 'context')
"""Stages of a pass that exist only because tokens are pruned (keys of ``stage_ms``)."""


PAPER = 'paper'
REFERENCE = 'reference'
FUSIONS = (PAPER, REFERENCE)
"""What ``pruning.fusion`` may be: the combination of the paper, the sum of the published code."""

ACTION_ROWS = 'action'
LAST_ROW = 'last'
QUERY_ROWS = (ACTION_ROWS, LAST_ROW)
"""What ``pruning.query_rows`` may be: the rows whose attention is the saliency."""
RENEWERS = ('refresh', 'vla_cache')
"""Methods that compute few tokens in every layer and leave the others as they were."""

REFRESH_SCORES = ('salient_and_changed', 'change', 'saliency', 'age', 'shuffled')
"""What ``pruning.refresh_score`` may be: which tokens ``refresh`` renews first."""

MATCHINGS = ('likeness', 'place')
"""What ``pruning.matching`` may be: the most similar token, or the one at the same place."""

CACHE_RULES = ('budget', 'published')
"""What ``pruning.cache_rule`` may be: a fixed number of tokens, or the paper's thresholds."""

STUDY_METHODS = ('oracle',)
"""Methods that a robot may not run: they cost more than not pruning."""

TEXT_ROWS = 'text'
ALL_ROWS = 'all'
TAPPED_ROWS = (ACTION_ROWS, LAST_ROW, TEXT_ROWS, ALL_ROWS)
"""Rows whose attention a method can read."""


class Clock(Protocol):
    """A source of time; injected so that the same code runs live, in replay and in tests."""

    def now_s(self) -> float:
        """Return the current time in seconds; ROS time, bag time or simulated time."""
        ...


@dataclass(frozen=True)
class MessageHeader:
    """When and where a message was made, exactly as it came.

    Attributes:
        stamp_ns: Time of capture, nanoseconds; 0 is no stamp.
        frame_id: Coordinate frame.
    """

    stamp_ns: int
    frame_id: str = ''

    @classmethod
    def at(cls, stamp_s: float, frame_id: str = '') -> MessageHeader:
        """Return a header with a stamp in seconds, rounded to nanoseconds."""
        return cls(round(stamp_s * NANOSECONDS), frame_id)

    @property
    def stamp_s(self) -> float:
        """The stamp in seconds, for ages and for comparing with a clock."""
        return self.stamp_ns / NANOSECONDS


def oldest_header(headers: Mapping[str, MessageHeader]) -> MessageHeader:
    """Return the header with the earliest stamp; the first of equal ones."""
    return min(headers.values(), key=lambda header: header.stamp_ns)


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one inference.

    Attributes:
        images: RGB images by camera name in the model's order, uint8 [H, W, 3].
        instruction: The task in words, not empty.
        proprio: Raw proprioception in the policy's layout, float64 [P], SI units; None when unused.
        image_headers: Header of each image, with its time of capture.
    """

    images: Mapping[str, UInt8Array]
    instruction: str
    proprio: Float64Array | None
    image_headers: Mapping[str, MessageHeader]

    @property
    def stamp_s(self) -> float:
        """Time zero of the chunk made from this observation: the oldest image's stamp, seconds."""
        return oldest_header(self.image_headers).stamp_s


@dataclass(frozen=True)
class PruningSettings:
    """How visual tokens are pruned; every field can change between two inferences.

    A field without a parameter says here what it is.

    Attributes:
        full_pass_share: Share of the passes that ``random``, ``grid`` and ``vla_cache`` leave
            unpruned, 0..1; a control with the budget of a method that has key steps.
        seed: Seed of ``random`` and of the shuffled saliency of ``refresh``.
    """

    method: str = field(
        default='safe',
        metadata=parameter(
            'pruning.method',
            'How visual tokens are chosen.',
            own='pruning.method',
            range_note='a registered pruner',
            change=Change.DYNAMIC,
        ),
    )
    keep_ratio: float = field(
        default=0.25,
        metadata=parameter(
            'pruning.keep_ratio',
            'Share of the visual tokens computed on a pruned step: kept, or renewed by refresh '
            'and vla_cache.',
            own='pruning.keep_ratio',
            minimum=0.05,
            maximum=1.0,
            change=Change.DYNAMIC,
        ),
    )
    layer: int = field(
        default=3,
        metadata=parameter(
            'pruning.layer',
            'K, the first decoder layer that sees only kept tokens. divprune, refresh and '
            'vla_cache have none.',
            own='pruning.layer',
            minimum=1,
            range_note='1 to the number of layers - 1',
            change=Change.DYNAMIC,
        ),
    )
    fusion_weight: float = field(
        default=0.5,
        metadata=parameter(
            'pruning.fusion_weight',
            'Lambda, the weight of the forecast.',
            own='pruning.fusion_weight',
            minimum=0.0,
            maximum=1.0,
            change=Change.DYNAMIC,
        ),
    )
    refresh_threshold: float = field(
        default=0.9,
        metadata=parameter(
            'pruning.refresh_threshold',
            'Gamma, the similarity below which the saliency reference is renewed.',
            own='pruning.refresh_threshold',
            minimum=-1.0,
            maximum=1.0,
            change=Change.DYNAMIC,
        ),
    )
    fusion: str = field(
        default='paper',
        metadata=parameter(
            'pruning.fusion',
            'Fuse as the paper or as the published code (reference).',
            own='pruning.fusion',
            choices=FUSIONS,
            change=Change.DYNAMIC,
        ),
    )
    query_rows: str = field(
        default='action',
        metadata=parameter(
            'pruning.query_rows',
            'Rows whose attention is the saliency: the action rows or the last row.',
            own='pruning.query_rows',
            choices=QUERY_ROWS,
            change=Change.DYNAMIC,
        ),
    )
    refresh_layer: int | None = field(
        default=None,
        metadata=parameter(
            'pruning.refresh_layer',
            'Layer of the refresh test. Unset: pruning.layer - 1.',
            own='pruning.refresh_layer',
            minimum=0,
            range_note='0 to pruning.layer - 1',
            change=Change.DYNAMIC,
        ),
    )
    forecast_layers: tuple[int, ...] = field(
        default=(),
        metadata=parameter(
            'pruning.forecast_layers',
            'Deep layers to forecast. Unset: the last.',
            own='pruning.forecast_layers',
            minimum=0,
            range_note='0 to the number of layers - 1',
            change=Change.DYNAMIC,
        ),
    )
    max_reference_age_s: float = field(
        default=0.0,
        metadata=parameter(
            'pruning.max_reference_age_s',
            'Renew the saliency reference when it is older. 0: never by age.',
            own='pruning.max_reference_age_s',
            unit='s',
            minimum=0.0,
            maximum=3600.0,
            change=Change.DYNAMIC,
        ),
    )
    max_staleness: float = field(
        default=0.0,
        metadata=parameter(
            'pruning.max_staleness',
            'Tau of refresh, the residual above which all tokens are computed. 0: never by this.',
            own='pruning.max_staleness',
            own_over='pruning.keep_ratio',
            minimum=0.0,
            maximum=1.0,
            change=Change.DYNAMIC,
        ),
    )
    saliency_layers: tuple[int, ...] = field(
        default=(),
        metadata=parameter(
            'pruning.saliency_layers',
            'Layers whose attention is the saliency of refresh. Unset: up to 8 of the upper three '
            'quarters.',
            own='pruning.saliency_layers',
            minimum=0,
            range_note='0 to the number of layers - 1',
            change=Change.DYNAMIC,
        ),
    )
    age_weight: float = field(
        default=0.1,
        metadata=parameter(
            'pruning.age_weight',
            'Weight of the age of a token in refresh: what one step counts, in mean changes.',
            own='pruning.age_weight',
            minimum=0.0,
            maximum=10.0,
            change=Change.DYNAMIC,
        ),
    )
    refresh_score: str = field(
        default='salient_and_changed',
        metadata=parameter(
            'pruning.refresh_score',
            'Which tokens refresh renews first. All but the default are for comparison.',
            own='pruning.refresh_score',
            choices=REFRESH_SCORES,
            change=Change.DYNAMIC,
        ),
    )
    change_per_camera: bool = field(
        default=False,
        metadata=parameter(
            'pruning.change_per_camera',
            "Measure change in refresh against the camera's own mean, so that a moving camera does "
            'not take the budget of one at rest.',
            own='pruning.change_per_camera',
            change=Change.DYNAMIC,
        ),
    )
    matching: str = field(
        default='likeness',
        metadata=parameter(
            'pruning.matching',
            'Which token of the key step safe and merge take the forecast from: the most similar '
            'one, or the one at the same place. The latter is for comparison.',
            own='pruning.matching',
            choices=MATCHINGS,
            change=Change.DYNAMIC,
        ),
    )
    cache_rule: str = field(
        default='budget',
        metadata=parameter(
            'pruning.cache_rule',
            'How many tokens vla_cache computes: as pruning.keep_ratio says, or as many as the '
            "published thresholds ask for. The latter's speed depends on the images.",
            own='pruning.cache_rule',
            choices=CACHE_RULES,
            change=Change.DYNAMIC,
        ),
    )
    forecast_moved: bool = field(
        default=False,
        metadata=parameter(
            'pruning.forecast_moved',
            'Let a token in refresh that has moved within its camera start from the keys of where '
            'it was.',
            own='pruning.forecast_moved',
            change=Change.DYNAMIC,
        ),
    )
    full_pass_share: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class PruningRecord:
    """What pruning did at one inference.

    Attributes:
        method: Pruner that ran.
        total: Visual tokens by camera.
        kept: Visual tokens that went through every layer by camera: kept, or renewed by a method
            that leaves the others as they were. Equals ``total`` on an unpruned step.
        key_step: Whether this step renewed the method's memory as a whole.
        reason: One of ``REFRESH_REASONS`` on a key step, else None.
        similarity: kappa, cosine of the shallow saliency and its forecast; None without a forecast.
        threshold: gamma in force.
        scores: Score that the method chose by, by camera, float32 [rows, columns] of the token
            grid; empty when the method has none.
        kept_masks: Which tokens ``kept`` counts by camera, bool [rows, columns].
        stage_ms: Milliseconds by stage (``prepare``, ``encode``, ``decode``, ``pruning``, ...).
        decoder_macs: Multiply-accumulates of the decoder in this step (safe_pruner, Cost).
        decoder_macs_full: The same had nothing been pruned.
        residual: Share of what is attended to that would have stayed stale, 0..1; None for a
            method that drops tokens, and where there was nothing to renew.
        max_staleness: tau in force; 0 is off.
        ages: Steps since each token was computed by camera, float32 [rows, columns]; empty for a
            method that drops tokens.
        context_bytes: Size of the keys and values that outlive the step.
        stage_macs: Multiply-accumulates by stage around the decoder (``vision``, ``projector``,
            ``head``), as far as they are counted; pruning changes only those of an expert.
    """

    method: str
    total: Mapping[str, int]
    kept: Mapping[str, int]
    key_step: bool
    reason: str | None
    similarity: float | None
    threshold: float
    scores: Mapping[str, Float32Array]
    kept_masks: Mapping[str, BoolArray]
    stage_ms: Mapping[str, float]
    decoder_macs: int
    decoder_macs_full: int
    residual: float | None = None
    max_staleness: float = 0.0
    ages: Mapping[str, Float32Array] = field(default_factory=dict)
    context_bytes: int = 0
    stage_macs: Mapping[str, int] = field(default_factory=dict)

    @property
    def renews(self) -> bool:
        """Whether tokens that were not computed stay visible as they were."""
        return bool(self.ages)

    @property
    def pruning_ratio(self) -> float:
        """Fraction of the visual tokens not computed in this step, 0 on a key step."""
        total = sum(self.total.values())
        return 1.0 - sum(self.kept.values()) / total if total else 0.0


@dataclass(frozen=True)
class ActionChunk:
    """A plan of T consecutive actions in physical units; action i lasts one action period.

    Attributes:
        translation_m: Displacement of the end effector per action, float64 [T, 3], metres.
        rotation_rad: Rotation vector (axis times angle) per action, float64 [T, 3], radians.
        gripper: Opening target per action, float64 [T], 0 closed .. 1 open.
        record: What pruning did while this chunk was made.
    """

    translation_m: Float64Array
    rotation_rad: Float64Array
    gripper: Float64Array
    record: PruningRecord

    def __len__(self) -> int:
        """Return the number of actions T."""
        return len(self.gripper)

    def is_finite(self) -> bool:
        """Tell whether every number of the plan is finite."""
        arrays = (self.translation_m, self.rotation_rad, self.gripper)
        return all(bool(np.isfinite(array).all()) for array in arrays)


@dataclass(frozen=True)
class PolicySpec:
    """What a policy directory says about itself, read without loading weights.

    None means that neither the checkpoint nor its ``policy.yaml`` says it: the user must, when the
    policy needs it.

    Attributes:
        name: Directory or bundled name, for messages.
        kind: Which model it is (``mini``, ``openvla_oft``, ``openvla``, ``pi0``, ``pi05``,
            ``cogact``).
        cameras: Default camera names in the model's order.
        num_cameras: How many images the model takes; None when any number works.
        chunk_size: T, actions per chunk.
        num_layers: L of the decoder.
        action_period_s: Training step, seconds.
        execute_steps: Actions to play before a new inference is due.
        proprio_layout: Parts of the proprioception vector; empty when the model takes none.
        proprio_dim: P, numbers of proprioception that the model takes; 0 when it takes none.
        unnorm_keys: Dataset statistics that the checkpoint holds; empty when it needs no choice.
        linear_scale_m, angular_scale_rad: Metres and radians per model unit.
        rotation: ``axis_angle`` or ``euler_xyz``.
        frame: ``base`` or ``ee``: the frame in which actions are expressed.
        gripper_open_value, gripper_closed_value: The model's values for open and closed.
        gripper_joint_names: Joints that ``gripper_joints`` in the layout stands for.
        rotate_180, mirror, center_crop, jpeg_roundtrip: Image preparation of the training data.
        limits: Limits it was trained with, by parameter name (``max_linear_speed`` ...).
        pruning: Pruning settings of the model by parameter name without ``pruning.``.
    """

    name: str
    kind: str
    cameras: tuple[str, ...]
    num_cameras: int | None
    chunk_size: int
    num_layers: int
    action_period_s: float | None = None
    execute_steps: int | None = None
    proprio_layout: tuple[str, ...] = ()
    proprio_dim: int | None = None
    unnorm_keys: tuple[str, ...] = ()
    linear_scale_m: float | None = None
    angular_scale_rad: float | None = None
    rotation: str | None = None
    frame: str | None = None
    gripper_open_value: float | None = None
    gripper_closed_value: float | None = None
    gripper_joint_names: tuple[str, ...] = ()
    rotate_180: bool = False
    mirror: bool = False
    center_crop: bool = False
    jpeg_roundtrip: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    pruning: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """Everything a policy is loaded with: user's values over the policy's own, complete.

    A field without a parameter says here what it is.

    Attributes:
        action_slice: Read-out of OpenVLA-OFT: ``oft`` or ``shifted`` (one position later); None is
            the policy's own, else ``oft``.
    """

    unnorm_key: str = field(
        default='',
        metadata=parameter(
            'unnorm_key',
            'Data set whose statistics turn model units into actions. May be empty if the '
            'checkpoint has at most one.',
            range_note='a key of the checkpoint',
            change=Change.READ_ONLY,
        ),
    )
    device: str = field(
        default='auto',
        metadata=parameter(
            'device',
            'Where the policy runs. auto uses a GPU if there is one.',
            choices=('auto', 'cpu', 'cuda'),
        ),
    )
    dtype: str = field(
        default='auto',
        metadata=parameter(
            'dtype',
            'Number format of the policy. auto is bfloat16 on a GPU, otherwise what the policy '
            'stores.',
            choices=('auto', 'float32', 'bfloat16'),
        ),
    )
    seed: int = field(
        default=0,
        metadata=parameter(
            'seed',
            'Seed of the noise that a diffusion or flow policy makes its actions from. Every '
            'episode starts with it, so a replay repeats them. Other policies draw none.',
            minimum=0,
            maximum=LARGEST_INT,
        ),
    )
    cameras: tuple[str, ...] = field(
        metadata=parameter(
            'cameras',
            "Names of the cameras, in the order of the model's inputs. Each is the prefix of a "
            'topic.',
            own='cameras',
            range_note='topic names, as many as the model takes',
        )
    )
    rotate_180: bool = field(
        metadata=parameter(
            'image.rotate_180',
            'Turn images upside down, if the training images were.',
            own='rotate_180',
        )
    )
    mirror: bool = field(
        metadata=parameter(
            'image.mirror',
            'Mirror images left to right, as the training data was.',
            own='mirror',
        )
    )
    center_crop: bool = field(
        metadata=parameter(
            'image.center_crop',
            'Crop to the middle 90 % of the area, if the model was trained with random crops.',
            own='center_crop',
        )
    )
    jpeg_roundtrip: bool = field(
        metadata=parameter(
            'image.jpeg_roundtrip',
            'Encode and decode images as JPEG, if the training images were JPEG.',
            own='jpeg_roundtrip',
        )
    )
    proprio_layout: tuple[str, ...] = field(
        default=(),
        metadata=parameter(
            'proprio.layout',
            "Parts of the proprioception vector, in order. Empty uses the policy's own.",
            own='proprio_layout',
            range_note='ee_position, ee_axis_angle, ee_axis_angle_down, ee_euler_xyz, '
            'ee_quaternion, gripper_joints, joint:<name>, zero',
        ),
    )
    linear_scale_m: float = field(
        metadata=parameter(
            'action.linear_scale_m',
            'Metres per model unit of translation.',
            own='linear_scale_m',
            unit='m',
            above=0.0,
        )
    )
    angular_scale_rad: float = field(
        metadata=parameter(
            'action.angular_scale_rad',
            'Radians per model unit of rotation.',
            own='angular_scale_rad',
            unit='rad',
            above=0.0,
        )
    )
    rotation: str = field(
        metadata=parameter(
            'action.rotation',
            "Meaning of the model's three rotation numbers.",
            own='rotation',
            choices=('axis_angle', 'euler_xyz'),
        )
    )
    gripper_open_value: float = field(
        metadata=parameter(
            'gripper.open_value',
            "The model's number for an open gripper.",
            own='gripper_open_value',
            range_note='a finite number other than gripper.closed_value',
        )
    )
    gripper_closed_value: float = field(
        metadata=parameter(
            'gripper.closed_value',
            "The model's number for a closed gripper.",
            own='gripper_closed_value',
            range_note='a finite number other than gripper.open_value',
        )
    )
    gripper_joint_names: tuple[str, ...] = field(
        default=(),
        metadata=parameter(
            'gripper.joint_names',
            'Joints that gripper_joints in proprio.layout stands for, in order.',
            own='gripper_joint_names',
            range_note='joint names',
        ),
    )
    action_slice: str | None = None


@runtime_checkable
class EpisodeMemory(Protocol):
    """The pruner's memory of one episode, owned by whoever runs the episode."""

    @property
    def reference_stamp_s(self) -> float | None:
        """Observation stamp of the newest key step, seconds; None when the memory is empty."""
        ...

    def clear(self, reason: str) -> None:
        """Forget everything; the next step is a key step with this reason."""
        ...


class Policy(Protocol):
    """A model that turns an observation into an action chunk and keeps nothing in between."""

    @property
    def spec(self) -> PolicySpec:
        """What the policy's directory says about itself."""
        ...

    def new_episode(self) -> EpisodeMemory:
        """Return an empty memory whose first key step has the reason ``episode_start``."""
        ...

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Run the model once.

        Args:
            observation: What the robot sees, as the policy's settings say.
            memory: The episode's memory, from ``new_episode``; updated on a key step only.
            pruning: Settings for this inference.

        Returns:
            The plan in physical units with its pruning record.

        Raises:
            NonFiniteError: Attention, tokens or actions hold NaN or infinity; memory untouched.
        """
        ...
