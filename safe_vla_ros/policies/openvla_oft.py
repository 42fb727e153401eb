"""OpenVLA-OFT checkpoints: what their directory holds, and how it becomes a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import (
    Checkpoint,
    fill_module,
    find_component,
    load_component,
    open_checkpoint,
)
from safe_vla_ros.policies.device import choose_device, choose_dtype
from safe_vla_ros.policies.heads import (
    GeluProjector,
    L1ActionHead,
    build_action_head,
    build_proprio_projector,
    matrix_shape,
)
from safe_vla_ros.policies.normalization import read_bounds
from safe_vla_ros.policies.openvla_config import (
    ACTION_SLICES,
    NetworkSizes,
    OpenVlaOptions,
    guess_chunk_size,
    guess_normalization,
    read_options,
    read_sizes,
    read_token_bins,
)
from safe_vla_ros.policies.openvla_network import load_network, stored_dtype
from safe_vla_ros.policies.openvla_oft_model import OftModel
from safe_vla_ros.policies.openvla_policy import (
    Normalizers,
    OpenVlaPolicy,
    read_normalizers,
    refuse_unsupported,
    tokenizer_of,
)
from safe_vla_ros.policies.packed_linear import pack_for_cpu
from safe_vla_ros.policies.spec import LARGEST_CHUNK, apply_policy_file, check_integer
from safe_vla_ros.types import PolicySettings, PolicySpec

_EPSILON = 1e-8
"""Added to the range of the actions in OpenVLA-OFT, not in OpenVLA."""


@dataclass(frozen=True)
class OftDirectory:
    """An opened OpenVLA-OFT directory; everything but the weights has been read and checked.

    Attributes:
        checkpoint: Configuration and headers of the weights.
        options: What the files leave open.
        sizes: Sizes of the network.
        head_file: The L1 head; None with discrete tokens.
        proprio_file: The proprioception projector; None when the model takes none.
        proprio_dim: P; None without a projector.
        action_dim: A.
        chunk_size: T.
    """

    checkpoint: Checkpoint
    options: OpenVlaOptions
    sizes: NetworkSizes
    head_file: Path | None
    proprio_file: Path | None
    proprio_dim: int | None
    action_dim: int
    chunk_size: int


def open_directory(path: Path, options: OpenVlaOptions | None = None) -> OftDirectory:
    """Open an OpenVLA-OFT directory without loading weights.

    Args:
        path: The checkpoint directory.
        options: What its files leave open; read from ``policy.yaml`` when None.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
    """
    checkpoint = open_checkpoint(path)
    refuse_unsupported(path)
    options = read_options(path) if options is None else options
    if options.action_slice not in ACTION_SLICES:
        msg = f'action_slice is {options.action_slice!r}, allowed are {" and ".join(ACTION_SLICES)}'
        raise CheckpointError(msg)
    sizes = read_sizes(checkpoint, options.vision_heads)
    head_file = find_component(path, 'action_head')
    proprio_file = find_component(path, 'proprio_projector')
    proprio_dim = None
    if proprio_file is not None:
        shapes = load_component(proprio_file, shapes_only=True)
        proprio_dim = matrix_shape(shapes, proprio_file, 'fc1.weight')[1]
    if head_file is not None:
        shapes = load_component(head_file, shapes_only=True)
        action_dim = build_action_head(shapes, head_file, sizes.llama.hidden_size).action_dim
    else:
        action_dim = _action_dim(checkpoint, options)
    size = options.chunk_size or checkpoint.config.get('num_actions_chunk')
    if size is None:
        size = guess_chunk_size(list(checkpoint.statistics()), action_dim, proprio_dim)
    check_integer(size, 1, LARGEST_CHUNK, f'{path / "config.json"}: num_actions_chunk')
    return OftDirectory(
        checkpoint, options, sizes, head_file, proprio_file, proprio_dim, action_dim, size
    )


def _action_dim(checkpoint: Checkpoint, options: OpenVlaOptions) -> int:
    name, content = next(iter(checkpoint.statistics().items()))
    kind = options.normalization or guess_normalization(name, 0, content)
    return len(read_bounds(content, 'action', kind, f'{checkpoint.path}: statistics of {name}'))


def read_spec(path: Path) -> PolicySpec:
    """Read what an OpenVLA-OFT directory says about itself; no weights are loaded.

    Args:
        path: The checkpoint directory.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
    """
    return _spec(open_directory(path))


def _spec(directory: OftDirectory) -> PolicySpec:
    path = directory.checkpoint.path
    spec = PolicySpec(
        name=path.name,
        kind='openvla_oft',
        cameras=(),
        num_cameras=None,
        chunk_size=directory.chunk_size,
        num_layers=directory.sizes.llama.num_hidden_layers,
        proprio_dim=directory.proprio_dim or 0,
        unnorm_keys=tuple(directory.checkpoint.statistics()),
    )
    return apply_policy_file(spec, path)


def load(
    path: Path, settings: PolicySettings, progress: Callable[[float], None] | None = None
) -> OpenVlaPolicy:
    """Load an OpenVLA-OFT directory as a policy.

    Everything small is checked before the large weights are read.

    Args:
        path: The checkpoint directory.
        settings: Complete settings.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
        ParameterError: Device or dtype cannot be had.
    """
    options = read_options(path)
    if settings.action_slice is not None:
        options = replace(options, action_slice=settings.action_slice)
    directory = open_directory(path, options)
    encoder = tokenizer_of(path, options.prompt, directory.sizes.llama.vocab_size)
    return OpenVlaPolicy(
        _spec(directory),
        settings,
        read_directory_normalizers(directory, settings.unnorm_key),
        encoder.encode,
        lambda: load_model(
            directory, device=settings.device, dtype=settings.dtype, progress=progress
        ),
    )


def read_directory_normalizers(directory: OftDirectory, unnorm_key: str) -> Normalizers:
    """Read the statistics of one dataset and compare them with the heads.

    Args:
        directory: The opened directory.
        unnorm_key: Name of the dataset; empty takes the only one.

    Raises:
        CheckpointError: The key is unknown, or the statistics are broken or of other sizes.
    """
    path = directory.checkpoint.path

    def normalization(name: str, content: Mapping[str, Any]) -> str:
        stated = directory.options.normalization
        return stated or guess_normalization(name, directory.action_dim, content)

    normalizers = read_normalizers(
        directory.checkpoint.statistics(),
        unnorm_key,
        normalization=normalization,
        where=path,
        proprio=directory.proprio_dim is not None,
        epsilon=_EPSILON,
    )
    for part, bounds, expected, file in (
        ('action', normalizers.actions, directory.action_dim, directory.head_file),
        ('proprio', normalizers.proprio, directory.proprio_dim, directory.proprio_file),
    ):
        if bounds is not None and len(bounds) != expected:
            owner = file.name if file else 'the model'
            msg = f'{path}: the statistics of {part} have {len(bounds)} values, {owner} {expected}'
            raise CheckpointError(msg)
    return normalizers


def load_model(
    directory: OftDirectory,
    *,
    device: str = 'auto',
    dtype: str = 'auto',
    progress: Callable[[float], None] | None = None,
) -> OftModel:
    """Load the network and its heads; neither tokenizer nor statistics are needed.

    Args:
        directory: The opened directory.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto``, ``float32`` or ``bfloat16``; auto keeps the checkpoint's on the CPU.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
        ParameterError: Device or dtype cannot be had.
    """
    checkpoint = directory.checkpoint
    place = choose_device(device)
    precision = choose_dtype(dtype, place, stored_dtype(checkpoint))
    head, projector = _load_components(directory, place, precision)
    network = load_network(
        checkpoint,
        directory.sizes,
        with_lm_head=head is None,
        device=place,
        dtype=precision,
        progress=progress,
    )
    pack_for_cpu(network, head, projector, device=place, dtype=precision)
    return OftModel(
        network,
        head,
        projector,
        chunk_size=directory.chunk_size,
        action_dim=directory.action_dim,
        action_slice=directory.options.action_slice,
        token_bins=read_token_bins(checkpoint, directory.sizes),
    )


def _load_components(
    directory: OftDirectory, device: torch.device, dtype: torch.dtype
) -> tuple[L1ActionHead | None, GeluProjector | None]:
    width = directory.sizes.llama.hidden_size
    head = projector = None

    def fill(module: nn.Module, tensors: Mapping[str, torch.Tensor], file: Path) -> None:
        moved = {key: value.to(device=device, dtype=dtype) for key, value in tensors.items()}
        fill_module(module, moved, file)

    if directory.head_file is not None:
        tensors = load_component(directory.head_file)
        head = build_action_head(tensors, directory.head_file, width)
        fill(head, tensors, directory.head_file)
    if directory.proprio_file is not None:
        tensors = load_component(directory.proprio_file)
        projector = build_proprio_projector(tensors, directory.proprio_file, width)
        fill(projector, tensors, directory.proprio_file)
    return head, projector
