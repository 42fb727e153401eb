"""pi0 and pi0.5 checkpoints: what their directory says, and how it becomes a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.actions import to_chunk
from safe_vla_ros.policies.device import choose_device, choose_dtype
from safe_vla_ros.policies.image_preparation import ImagePreparation
from safe_vla_ros.policies.observation_parts import camera_images, check_finite, proprio_vector
from safe_vla_ros.policies.packed_linear import pack_for_cpu
from safe_vla_ros.policies.pi_directory import PiDirectory, open_directory
from safe_vla_ros.policies.pi_images import fit_image
from safe_vla_ros.policies.pi_model import PiModel
from safe_vla_ros.policies.pi_network import load_network
from safe_vla_ros.policies.pruning_record import make_record
from safe_vla_ros.policies.spec import apply_policy_file
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.types import PolicySpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from safe_vla_ros.policies.pi_statistics import Vector
    from safe_vla_ros.types import (
        ActionChunk,
        EpisodeMemory,
        Float64Array,
        Observation,
        PolicySettings,
        PruningSettings,
    )


def read_spec(path: Path) -> PolicySpec:
    """Read what a directory of pi0 or pi0.5 says about itself; no weights are loaded.

    Args:
        path: The checkpoint directory.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
    """
    names = sorted(file.parent.name for file in path.glob('assets/*/norm_stats.json'))
    return _spec(open_directory(path, unnorm_key=names[0] if names else ''))


def load(
    path: Path, settings: PolicySettings, progress: Callable[[float], None] | None = None
) -> PiPolicy:
    """Load a directory of pi0 or pi0.5 as a policy that drives an end effector.

    Everything small is checked before the weights are read.

    Args:
        path: The checkpoint directory.
        settings: Complete settings.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: Something is missing or wrong, or the actions are those of joints.
        ParameterError: Device or dtype cannot be had.
    """
    directory = open_directory(path, unnorm_key=settings.unnorm_key)
    return PiPolicy(directory, settings, progress)


def load_model(
    directory: PiDirectory,
    *,
    device: str = 'auto',
    dtype: str = 'auto',
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> PiModel:
    """Load the model without what is around it: the way to run joint-space checkpoints.

    Args:
        directory: From ``open_directory``.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto``, ``float32`` or ``bfloat16``; auto keeps the checkpoint's on the CPU.
        seed: Seed of every episode's noise.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: A weight is missing, left over, or of another shape.
        ParameterError: Device or dtype cannot be had.
    """
    options, checkpoint = directory.options, directory.checkpoint
    place = choose_device(device)
    stored = next(t.dtype for key, t in checkpoint.tensors.items() if key.endswith('q_proj.weight'))
    precision = choose_dtype(dtype, place, stored)
    network = load_network(
        checkpoint,
        directory.sizes,
        device=place,
        dtype=precision,
        vision_dtype=precision if options.vision_dtype == 'model' else torch.float32,
        progress=progress,
    )
    pack_for_cpu(network.matrices(), device=place, dtype=precision)
    return PiModel(
        network,
        chunk_size=directory.facts.chunk_size,
        num_steps=directory.num_steps,
        time_rule=str(options.time_rule),
        saliency_steps=options.saliency_steps or (),
        seed=seed,
    )


class PiPolicy:
    """A pi0 or pi0.5 checkpoint as a policy; implements ``types.Policy``."""

    def __init__(
        self,
        directory: PiDirectory,
        settings: PolicySettings,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Check everything small, then load; see ``load``."""
        self._spec = _spec(directory)
        self._facts, self._options = directory.facts, directory.options
        self._settings = settings
        self._check(directory)
        self._encoder = directory.encoder()
        self._size = directory.sizes.vision.image_size
        self._prepare = ImagePreparation.of(settings, None)
        self._model = load_model(
            directory,
            device=settings.device,
            dtype=settings.dtype,
            seed=settings.seed,
            progress=progress,
        )

    @property
    def spec(self) -> PolicySpec:
        """What the checkpoint says about itself."""
        return self._spec

    def new_episode(self) -> NoisyEpisode:
        """Return an empty memory; its noise starts with the setting ``seed``."""
        return self._model.new_episode()

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Run the model once; see ``types.Policy``.

        Raises:
            NonFiniteError: Attention, tokens or actions hold NaN or infinity.
            ObservationError: A camera is missing, or proprioception or instruction do not fit.
        """
        if not isinstance(memory, NoisyEpisode):
            msg = f'the memory must come from new_episode, got {type(memory).__name__}'
            raise TypeError(msg)
        watch = StageTimer(torch.device('cpu'))
        with watch.stage('prepare'):
            pixels = torch.stack(self._images(observation))
            state = self._facts.state.normalize(self._state(observation))
            prompt_ids = self._encoder.encode(observation.instruction, state)
        prediction = self._model.predict(
            pixels,
            prompt_ids,
            padded_state(state, self._facts.state_width) if self._facts.kind == 'pi0' else None,
            episode=memory,
            pruning=pruning,
            stamp_s=observation.stamp_s,
        )
        network, names = self._model.network, self._settings.cameras
        record = make_record(
            prediction.output,
            dict.fromkeys(names, (network.grid, network.grid)),
            pruning,
            {**watch.milliseconds(), **prediction.stopwatch.milliseconds()},
            {**network.encode_macs(len(names)), 'expert': prediction.expert_macs},
        )
        columns = prediction.actions[:, : len(self._facts.actions)]
        actions = self._facts.actions.unnormalize(columns)
        return to_chunk(actions, self._settings, record)

    def _check(self, directory: PiDirectory) -> None:
        settings, name = self._settings, self._spec.name
        if not directory.drives_end_effector:
            msg = (
                f'{name} has {len(self._facts.actions)} action columns of joints; a robot is '
                'driven by 4 or 7 (displacement of the end effector, gripper). Joint-space '
                'checkpoints can be run from Python with safe_vla_ros.policies.pi.load_model'
            )
            raise CheckpointError(msg)
        most = len(self._options.camera_slots or ())
        if not 1 <= len(settings.cameras) <= most:
            msg = f'cameras is {list(settings.cameras)}; {name} takes 1 to {most}'
            raise CheckpointError(msg)
        if not settings.proprio_layout:
            msg = f'proprio.layout is empty; {name} takes {len(self._facts.state)} numbers'
            raise CheckpointError(msg)

    def _images(self, observation: Observation) -> list[torch.Tensor]:
        options = self._options
        return [
            fit_image(
                self._prepare(image),
                self._size,
                resize=str(options.image_resize),
                padding=options.image_padding,
            )
            for image in camera_images(observation, self._settings.cameras)
        ]

    def _state(self, observation: Observation) -> Float64Array:
        state = proprio_vector(observation, len(self._facts.state))
        check_finite(state)
        return state


def padded_state(state: Vector, width: int) -> torch.Tensor:
    """Return a normalised state as pi0 takes it: float32 [width], zeros behind its numbers."""
    padded = torch.zeros(width)
    padded[: len(state)] = torch.from_numpy(state.astype(np.float32))
    return padded


def _spec(directory: PiDirectory) -> PolicySpec:
    facts, path = directory.facts, directory.checkpoint.path
    spec = PolicySpec(
        name=path.name,
        kind=facts.kind,
        cameras=directory.options.camera_slots or (),
        num_cameras=None,
        chunk_size=facts.chunk_size,
        num_layers=directory.sizes.prefix.num_hidden_layers,
        execute_steps=facts.execute_steps,
        proprio_dim=len(facts.state),
        unnorm_keys=facts.statistics,
    )
    return apply_policy_file(spec, path)
