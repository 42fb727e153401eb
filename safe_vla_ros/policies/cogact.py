"""CogACT directories as its training code writes them, and how they become a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.checkpoint_tensors import check_shape, load_parameters
from safe_vla_ros.policies.cogact_config import (
    ACTION_DIM,
    HEAD_PREFIX,
    CogActOptions,
    CogActSizes,
    open_cogact,
    read_options,
    read_sizes,
    refuse_surplus,
)
from safe_vla_ros.policies.cogact_model import CogActModel
from safe_vla_ros.policies.device import choose_device, choose_dtype
from safe_vla_ros.policies.diffusion_transformer import DiffusionTransformer, DitSizes
from safe_vla_ros.policies.image_preparation import resize_bicubic
from safe_vla_ros.policies.openvla_network import load_network, stored_dtype
from safe_vla_ros.policies.openvla_policy import Normalizers, OpenVlaPolicy, read_normalizers
from safe_vla_ros.policies.packed_linear import pack_for_cpu
from safe_vla_ros.policies.prompt import LLAMA_TOKENS, PromptEncoder, end_with_cognition_token
from safe_vla_ros.policies.spec import apply_policy_file
from safe_vla_ros.types import PolicySettings, PolicySpec


def read_spec(path: Path) -> PolicySpec:
    """Read what a CogACT directory says about itself; no weights are loaded.

    Args:
        path: The checkpoint directory.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
    """
    options = read_options(path)
    checkpoint = open_cogact(path, options)
    return _spec(checkpoint, read_sizes(checkpoint, options))


def _spec(checkpoint: Checkpoint, sizes: CogActSizes) -> PolicySpec:
    spec = PolicySpec(
        name=checkpoint.path.name,
        kind='cogact',
        cameras=(),
        num_cameras=1,
        chunk_size=sizes.head.chunk_size,
        num_layers=sizes.network.llama.num_hidden_layers,
        proprio_dim=0,
        unnorm_keys=tuple(checkpoint.statistics()),
    )
    return apply_policy_file(spec, checkpoint.path)


def load(
    path: Path, settings: PolicySettings, progress: Callable[[float], None] | None = None
) -> OpenVlaPolicy:
    """Load a CogACT directory as a policy.

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
    checkpoint = open_cogact(path, options)
    sizes = read_sizes(checkpoint, options)
    encoder = make_encoder(path, options, sizes.network.llama.vocab_size)
    return OpenVlaPolicy(
        _spec(checkpoint, sizes),
        settings,
        read_action_bounds(checkpoint, settings.unnorm_key),
        encoder.encode,
        lambda: load_model(
            checkpoint,
            options,
            sizes,
            device=settings.device,
            dtype=settings.dtype,
            seed=settings.seed,
            progress=progress,
        ),
        resize=resize_bicubic,
    )


def make_encoder(path: Path, options: CogActOptions, vocabulary: int) -> PromptEncoder:
    """Return the encoder of the prompt; its tokenizer has been read and is Llama 2's.

    Args:
        path: The checkpoint directory.
        options: Say where the tokenizer lies.
        vocabulary: Rows of the decoder's embedding.

    Raises:
        CheckpointError: The tokenizer is missing, broken or of another model.
    """
    place = path / options.tokenizer
    directory = place.parent if place.suffix == '.json' else place
    encoder = PromptEncoder(directory, options.prompt, vocabulary, end_with_cognition_token)
    encoder.check()
    encoder.check_tokens(LLAMA_TOKENS)
    return encoder


def read_action_bounds(checkpoint: Checkpoint, unnorm_key: str) -> Normalizers:
    """Read the 1 % and 99 % quantiles of one dataset's actions.

    Args:
        checkpoint: The opened checkpoint.
        unnorm_key: Name of the dataset; empty takes the only one.

    Raises:
        CheckpointError: The key is unknown, or the statistics are broken, of other sizes or empty.
    """
    normalizers = read_normalizers(
        checkpoint.statistics(),
        unnorm_key,
        normalization=lambda *_: 'bounds_q99',
        where=checkpoint.path,
        proprio=False,
        epsilon=0.0,
    )
    bounds = normalizers.actions
    if len(bounds) != ACTION_DIM:
        msg = f'{checkpoint.path}: the statistics of action have {len(bounds)} values, expected '
        raise CheckpointError(f'{msg}{ACTION_DIM}')
    empty = np.flatnonzero(bounds.mask & (bounds.low == bounds.high))
    if empty.size:
        index = int(empty[0])
        msg = (
            f'{checkpoint.path}: q01 and q99 of number {index} of the action are both '
            f'{bounds.low[index]:g}, so nothing that the model says could change it'
        )
        raise CheckpointError(msg)
    return normalizers


def load_model(
    checkpoint: Checkpoint,
    options: CogActOptions,
    sizes: CogActSizes,
    *,
    device: str = 'auto',
    dtype: str = 'auto',
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> CogActModel:
    """Load the network and its head; neither tokenizer nor statistics are needed.

    The head runs in float32 whatever the network's dtype, as published.

    Args:
        checkpoint: From ``open_cogact``.
        options: What its files leave open.
        sizes: From ``read_sizes``.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto``, ``float32`` or ``bfloat16``; auto keeps the checkpoint's on the CPU.
        seed: Seed of every episode's noise.
        progress: Called with the share of the network's weights that has been read, 0 to 1.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
        ParameterError: Device or dtype cannot be had.
    """
    place = choose_device(device)
    precision = choose_dtype(dtype, place, stored_dtype(checkpoint))
    head = _load_head(checkpoint, sizes.head, place)
    network = load_network(
        checkpoint,
        sizes.network,
        with_lm_head=False,
        device=place,
        dtype=precision,
        progress=progress,
    )
    pack_for_cpu(network, device=place, dtype=precision)
    return CogActModel(
        network,
        head,
        guidance=options.cfg_scale,
        ddim_steps=options.ddim_steps,
        seed=seed,
    )


def build_head(sizes: DitSizes) -> DiffusionTransformer:
    """Build the head on the meta device: no memory, no random numbers."""
    with torch.device('meta'):
        return DiffusionTransformer(sizes).eval()


def _load_head(
    checkpoint: Checkpoint, sizes: DitSizes, device: torch.device
) -> DiffusionTransformer:
    head = build_head(sizes)
    sources = {
        name: checkpoint.tensor(f'{HEAD_PREFIX}{name}') for name, _ in head.named_parameters()
    }
    for name, stored in sources.items():
        check_shape(stored, tuple(head.get_parameter(name).shape))
    used = {f'{HEAD_PREFIX}{name}' for name in sources}
    refuse_surplus(checkpoint, (HEAD_PREFIX,), used)
    load_parameters(head, sources, device=device, dtype=torch.float32)
    return head
