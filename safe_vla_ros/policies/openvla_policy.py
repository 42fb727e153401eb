"""What OpenVLA's kinds and CogACT do around their model: observation in, action chunk out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.actions import to_chunk
from safe_vla_ros.policies.decoder import DecoderOutput
from safe_vla_ros.policies.image_preparation import ImagePreparation
from safe_vla_ros.policies.normalization import (
    Bounds,
    choose_statistics,
    normalize_proprio,
    read_bounds,
    unnormalize_actions,
)
from safe_vla_ros.policies.observation_parts import camera_images
from safe_vla_ros.policies.openvla_network import OpenVlaNetwork
from safe_vla_ros.policies.prompt import PromptEncoder
from safe_vla_ros.policies.pruning_record import make_record
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.types import (
    ActionChunk,
    EpisodeMemory,
    Float32Array,
    Float64Array,
    Observation,
    PolicySettings,
    PolicySpec,
    PruningSettings,
    UInt8Array,
)

_END_EFFECTOR_DIMENSIONS = (4, 7)
_UNSUPPORTED_FILES = {
    'vision_backbone': 'a vision backbone with FiLM',
    'noisy_action_projector': 'a diffusion action head',
}


@dataclass(frozen=True)
class Prediction:
    """What a model says about one observation.

    Attributes:
        actions: Normalised actions, float32 or float64 [T, A].
        states: Hidden states that they were read from, [T * A, D].
        output: The decoder's pass with what was pruned.
        stopwatch: Time of the stages around the decoder: ``encode`` (of it ``vision`` and
            ``projector``) and ``head``; for autoregressive models ``generate``.
        head_macs: Multiply-accumulates of ``head``; 0 where they are not counted.
    """

    actions: Float32Array | Float64Array
    states: torch.Tensor
    output: DecoderOutput
    stopwatch: StageTimer
    head_macs: int = 0


class ActionModel(Protocol):
    """A network with its way of reading actions."""

    network: OpenVlaNetwork

    def new_episode(self) -> EpisodeMemory:
        """Return an empty memory of the kind that ``predict`` takes."""
        ...

    def predict(
        self,
        pixels: torch.Tensor,
        prompt_ids: Sequence[int],
        proprio: torch.Tensor | None,
        *,
        episode: Any,
        pruning: PruningSettings,
        stamp_s: float,
    ) -> Prediction:
        """Run one step.

        Args:
            pixels: Pixel values [C, 3 * towers, S, S].
            prompt_ids: Ids of the prompt, as ``PromptEncoder`` gives them.
            proprio: Normalised proprioception, float [P], or None.
            episode: The episode's memory, from ``new_episode``.
            pruning: How to prune.
            stamp_s: Time of the observation, seconds.
        """
        ...


@dataclass(frozen=True)
class Normalizers:
    """Bounds of one dataset.

    Attributes:
        actions: Bounds of the actions [A].
        proprio: Bounds of the proprioception [P], None when the model takes none.
        epsilon: Added to the range of the actions.
    """

    actions: Bounds
    proprio: Bounds | None
    epsilon: float

    def unnormalize(self, actions: Float32Array | Float64Array) -> Float64Array:
        """Bring normalised actions [T, A] to model units."""
        return unnormalize_actions(actions, self.actions, self.epsilon)


class OpenVlaPolicy:
    """An OpenVLA, OpenVLA-OFT or CogACT checkpoint as a policy; implements ``types.Policy``."""

    def __init__(
        self,
        spec: PolicySpec,
        settings: PolicySettings,
        normalizers: Normalizers,
        encode_prompt: Callable[[str], list[int]],
        load_model: Callable[[], ActionModel],
        *,
        resize: Callable[[UInt8Array, int, int], UInt8Array] | None = None,
    ) -> None:
        """Put a policy together; the ``load`` of each kind is the way to it.

        Args:
            spec: What the directory says.
            settings: Complete settings.
            normalizers: Statistics of the chosen dataset.
            encode_prompt: From an instruction to token ids.
            load_model: Loads the network with its read-out; called once the rest fits.
            resize: Brings images to the model's size; None is ``resize_lanczos3``.

        Raises:
            CheckpointError: The actions are not those of one end effector, or no camera is named.
        """
        dimensions = len(normalizers.actions)
        if dimensions not in _END_EFFECTOR_DIMENSIONS:
            msg = (
                f'{spec.name} has {dimensions} action dimensions; a robot is driven by 4 or 7 (end '
                'effector and gripper). Joint-space checkpoints can be run from Python with '
                'safe_vla_ros.policies.openvla_oft.open_directory and load_model'
            )
            raise CheckpointError(msg)
        wanted = spec.num_cameras
        if not settings.cameras or wanted not in (None, len(settings.cameras)):
            count = wanted or 'at least one name'
            msg = f'cameras is {list(settings.cameras)}; {spec.name} takes {count}'
            raise CheckpointError(msg)
        if (normalizers.proprio is None) != (not settings.proprio_layout):
            takes = (
                'no' if normalizers.proprio is None else f'{len(normalizers.proprio)} numbers of'
            )
            msg = (
                f'proprio.layout is {list(settings.proprio_layout)}; '
                f'{spec.name} takes {takes} proprioception'
            )
            raise CheckpointError(msg)
        self._spec = spec
        self._settings = settings
        self._model = model = load_model()
        self._normalizers = normalizers
        self._encode_prompt = encode_prompt
        self._prepare = ImagePreparation.of(settings, model.network.vision.image_size, resize)

    @property
    def spec(self) -> PolicySpec:
        """What the checkpoint says about itself."""
        return self._spec

    def new_episode(self) -> EpisodeMemory:
        """Return an empty memory whose first key step has the reason ``episode_start``."""
        return self._model.new_episode()

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Run the model once; see ``types.Policy``.

        Raises:
            NonFiniteError: Attention, tokens or actions hold NaN or infinity.
            ObservationError: A camera is missing, or proprioception or instruction do not fit.
        """
        watch = StageTimer(torch.device('cpu'))
        with watch.stage('prepare'):
            pixels = self._model.network.vision.normalize(self._images(observation))
            prompt_ids = self._encode_prompt(observation.instruction)
            proprio = self._proprio(observation)
        prediction = self._model.predict(
            pixels,
            prompt_ids,
            proprio,
            episode=memory,
            pruning=pruning,
            stamp_s=observation.stamp_s,
        )
        network = self._model.network
        grid = network.vision.grid
        macs = network.encode_macs(len(self._settings.cameras))
        if prediction.head_macs:
            macs['head'] = prediction.head_macs
        record = make_record(
            prediction.output,
            dict.fromkeys(self._settings.cameras, (grid, grid)),
            pruning,
            {**watch.milliseconds(), **prediction.stopwatch.milliseconds()},
            macs,
        )
        actions = self._normalizers.unnormalize(prediction.actions)
        return to_chunk(actions, self._settings, record)

    def _images(self, observation: Observation) -> torch.Tensor:
        images = camera_images(observation, self._settings.cameras)
        return torch.from_numpy(np.stack([self._prepare(image) for image in images]))

    def _proprio(self, observation: Observation) -> torch.Tensor | None:
        bounds = self._normalizers.proprio
        if bounds is None:
            return None
        if observation.proprio is None:
            msg = f'the observation has no proprioception; the policy takes {len(bounds)} values'
            raise ObservationError(msg)
        return torch.from_numpy(normalize_proprio(observation.proprio, bounds))


def read_normalizers(
    statistics: Mapping[str, Any],
    unnorm_key: str,
    *,
    normalization: Callable[[str, Mapping[str, Any]], str],
    where: Path,
    proprio: bool,
    epsilon: float,
) -> Normalizers:
    """Read the bounds of one dataset.

    Args:
        statistics: Statistics by dataset.
        unnorm_key: The wanted dataset; empty takes the only one.
        normalization: From name and statistics of the dataset to ``bounds`` or ``bounds_q99``.
        where: The checkpoint, for messages.
        proprio: Whether the model takes proprioception.
        epsilon: Added to the range of the actions.

    Raises:
        CheckpointError: The key or a part of the statistics is missing or broken.
    """
    dataset, content = choose_statistics(statistics, unnorm_key, str(where))
    kind = normalization(dataset, content)
    place = f'{where}: statistics of {dataset}'
    return Normalizers(
        actions=read_bounds(content, 'action', kind, place),
        proprio=read_bounds(content, 'proprio', kind, place) if proprio else None,
        epsilon=epsilon,
    )


def tokenizer_of(directory: Path, template: str, vocabulary: int) -> PromptEncoder:
    """Return a prompt encoder whose tokenizer has been read and fits the decoder.

    Raises:
        CheckpointError: The tokenizer is missing, broken or too large.
    """
    encoder = PromptEncoder(directory, template, vocabulary)
    encoder.check()
    return encoder


def refuse_unsupported(directory: Path) -> None:
    """Refuse checkpoints whose parts would be silently ignored.

    Raises:
        CheckpointError: It has FiLM or a diffusion head.
    """
    for name, what in _UNSUPPORTED_FILES.items():
        for file in sorted(directory.glob(f'{name}--*')):
            msg = f'{file} is {what}, which is not supported'
            raise CheckpointError(msg)
