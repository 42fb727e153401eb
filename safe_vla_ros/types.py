"""Values and seams that every part of the package shares. Standard library and numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]
UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]

REFRESH_REASONS = (
    'episode_start',
    'attention_shift',
    'instruction',
    'service',
    'observation_gap',
    'max_age',
    'parameters',
    'layout',
)
"""Why a key step renewed the saliency reference (message of ``~/subtask_reset``)."""

PRUNING_STAGES = ('matching', 'taps', 'selection', 'gathers')
"""Stages of a pass that exist only because tokens are pruned (keys of ``stage_ms``)."""


class Clock(Protocol):
    """A source of time; injected so that the same code runs live, in replay and in tests."""

    def now_s(self) -> float:
        """Return the current time in seconds; ROS time, bag time or simulated time."""
        ...


@dataclass(frozen=True)
class Observation:
    """What a policy sees at one inference.

    Attributes:
        images: RGB images by camera name in the model's order, uint8 [H, W, 3].
        instruction: The task in words, not empty.
        proprio: Raw proprioception in the policy's layout, float64 [P], SI units; None when unused.
        image_stamps_s: Capture time (header stamp) of each image, seconds.
    """

    images: Mapping[str, UInt8Array]
    instruction: str
    proprio: Float64Array | None
    image_stamps_s: Mapping[str, float]

    @property
    def stamp_s(self) -> float:
        """Time zero of the chunk made from this observation: the oldest image's stamp, seconds."""
        return min(self.image_stamps_s.values())


@dataclass(frozen=True)
class PruningSettings:
    """How visual tokens are pruned; every field can change between two inferences.

    Attributes:
        method: Name in the pruner registry.
        keep_ratio: Share of the visual tokens kept on a pruned step, 0.05..1.
        layer: K, the first decoder layer that sees only kept tokens, 1..L-1.
        fusion_weight: lambda, weight of the forecast, 0..1.
        refresh_threshold: gamma, similarity below which the reference is renewed, -1..1.
        fusion: ``paper`` or ``reference``.
        query_rows: ``action`` or ``last``.
        refresh_layer: l_r, 0..K-1; None means K-1.
        forecast_layers: L_D, 0..L-1; empty means the last layer.
        full_pass_share: Share of the passes that ``random`` leaves unpruned, 0..1; a control with
            the budget of a method that has key steps.
        seed: Seed of ``random``.
        max_reference_age_s: Age of the saliency reference at which whoever runs the episode clears
            the memory with ``max_age``, seconds; 0 is off.
    """

    method: str = 'safe'
    keep_ratio: float = 0.25
    layer: int = 3
    fusion_weight: float = 0.5
    refresh_threshold: float = 0.9
    fusion: str = 'paper'
    query_rows: str = 'action'
    refresh_layer: int | None = None
    forecast_layers: tuple[int, ...] = ()
    full_pass_share: float = 0.0
    seed: int = 0
    max_reference_age_s: float = 0.0


@dataclass(frozen=True)
class PruningRecord:
    """What pruning did at one inference.

    Attributes:
        method: Pruner that ran.
        total: Visual tokens by camera.
        kept: Visual tokens kept after layer K by camera; equals ``total`` on an unpruned step.
        key_step: Whether this step renewed the saliency reference.
        reason: One of ``REFRESH_REASONS`` on a key step, else None.
        similarity: kappa, cosine of the shallow saliency and its forecast; None without a forecast.
        threshold: gamma in force.
        scores: Fused score by camera, float32 [rows, columns] of the token grid; empty when the
            method has none.
        kept_masks: Which tokens were kept by camera, bool [rows, columns].
        stage_ms: Milliseconds by stage (``prepare``, ``encode``, ``decode``, ``pruning``, ...).
        decoder_macs: Multiply-accumulates of the decoder in this step (safe_pruner, Cost).
        decoder_macs_full: The same had nothing been pruned.
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

    @property
    def pruning_ratio(self) -> float:
        """Fraction of the visual tokens dropped, 0 on a key step."""
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
        kind: Name in the policy registry (``mini``, ``openvla_oft``, ``openvla``).
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
        rotate_180, center_crop, jpeg_roundtrip: Image preparation of the training data.
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
    center_crop: bool = False
    jpeg_roundtrip: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    pruning: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicySettings:
    """Everything a policy is loaded with: user's values over the policy's own, complete.

    Attributes are those of ``PolicySpec``, resolved, and:
        unnorm_key: Statistics to un-normalise with; empty when the checkpoint holds none.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto``, ``float32`` or ``bfloat16``.
        action_slice: Read-out of OpenVLA-OFT: ``oft`` or ``shifted`` (one position later); None is
            the policy's own, else ``oft``.
    """

    cameras: tuple[str, ...]
    proprio_layout: tuple[str, ...]
    gripper_joint_names: tuple[str, ...]
    linear_scale_m: float
    angular_scale_rad: float
    rotation: str
    gripper_open_value: float
    gripper_closed_value: float
    rotate_180: bool = False
    center_crop: bool = False
    jpeg_roundtrip: bool = False
    unnorm_key: str = ''
    device: str = 'auto'
    dtype: str = 'auto'
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
