"""What an OpenVLA checkpoint directory says about its model, read without loading weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.normalization import BOUND_NAMES
from safe_vla_ros.policies.prompt import PROMPT
from safe_vla_ros.policies.spec import (
    LARGEST_CHUNK,
    POLICY_FILE,
    check_integer,
    check_numbers,
    read_json,
    read_policy_group,
)
from safe_vla_ros.policies.vision_sizes import (
    TowerSizes,
    read_tower_sizes,
    tower_heads,
)

ACTION_SLICES = ('oft', 'shifted')
TOWER_PREFIXES = ('vision_backbone.featurizer', 'vision_backbone.fused_featurizer')
_SUPPORTED_RESIZE = 'resize-naive'
LONGEST_PROMPT = 10_000
LARGEST_IMAGE = 4096
_TEXT_RANGES = {
    'vocab_size': 2**20,
    'hidden_size': 2**16,
    'intermediate_size': 2**20,
    'num_hidden_layers': 512,
    'num_attention_heads': 1024,
    'num_key_value_heads': 1024,
    'head_dim': 2**16,
    'max_position_embeddings': 2**24,
}
"""Largest values of text_config; the weights' shapes must then agree with them."""


@dataclass(frozen=True)
class OpenVlaOptions:
    """What the files of a checkpoint leave open; the group ``openvla`` of its ``policy.yaml``.

    Attributes:
        chunk_size: T, actions per chunk; None derives it (``guess_chunk_size``).
        normalization: ``bounds`` or ``bounds_q99``; None derives it.
        action_slice: Read-out, ``oft`` (as trained) or ``shifted`` (one position later).
        decoding: ``parallel`` runs a checkpoint without action head as OpenVLA-OFT with discrete
            tokens; ``autoregressive`` as OpenVLA.
        prompt: Text with ``{instruction}`` in it.
        vision_heads: Attention heads by tower; None takes them from timm_model_ids.
    """

    chunk_size: int | None = None
    normalization: str | None = None
    action_slice: str = 'oft'
    decoding: str = 'autoregressive'
    prompt: str = PROMPT
    vision_heads: tuple[int, ...] | None = None


def read_options(directory: Path) -> OpenVlaOptions:
    """Read the group ``openvla`` of ``policy.yaml``; defaults where there is none.

    Raises:
        CheckpointError: A key or a value is not allowed.
    """
    known = [field.name for field in fields(OpenVlaOptions)]
    group = dict(read_policy_group(directory, 'openvla', known))
    where = directory / POLICY_FILE
    heads = group.get('vision_heads')
    if heads is not None:
        valid = isinstance(heads, list) and all(type(n) is int and n > 0 for n in heads)
        _check(valid, where, 'vision_heads', heads, 'a list of positive integers')
        group['vision_heads'] = tuple(heads)
    options = OpenVlaOptions(**group)
    size = options.chunk_size
    valid = size is None or (type(size) is int and 0 < size <= LARGEST_CHUNK)
    _check(valid, where, 'chunk_size', size, f'a positive integer up to {LARGEST_CHUNK}')
    valid = options.normalization in (None, *BOUND_NAMES)
    _check(valid, where, 'normalization', options.normalization, ' or '.join(BOUND_NAMES))
    allowed = ' or '.join(ACTION_SLICES)
    _check(
        options.action_slice in ACTION_SLICES, where, 'action_slice', options.action_slice, allowed
    )
    ways = ('autoregressive', 'parallel')
    _check(options.decoding in ways, where, 'decoding', options.decoding, ' or '.join(ways))
    valid = isinstance(options.prompt, str) and '{instruction}' in options.prompt
    valid = valid and len(options.prompt) <= LONGEST_PROMPT
    _check(valid, where, 'prompt', options.prompt, 'a text with {instruction} in it')
    return options


def _check(valid: bool, where: Path, key: str, got: object, allowed: str) -> None:
    if not valid:
        msg = f'{where}: openvla.{key} is {got!r}, allowed is {allowed}'
        raise CheckpointError(msg)


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of the network that every OpenVLA checkpoint has.

    Attributes:
        towers: The vision towers in the order of their features.
        means, stds: Normalisation of the pixels by tower and channel.
        projector: Widths from the joined features to the decoder.
        llama: Configuration of the decoder.
    """

    towers: tuple[TowerSizes, ...]
    means: tuple[tuple[float, ...], ...]
    stds: tuple[tuple[float, ...], ...]
    projector: tuple[int, ...]
    llama: LlamaConfig


def read_sizes(checkpoint: Checkpoint, heads: Sequence[int] | None = None) -> NetworkSizes:
    """Read every size from config.json, preprocessor_config.json and the weights' shapes.

    Args:
        checkpoint: The opened checkpoint.
        heads: Attention heads by tower; None takes them from ``timm_model_ids``.

    Raises:
        CheckpointError: Something is missing, contradictory or not supported.
    """
    path = checkpoint.path / 'preprocessor_config.json'
    where = checkpoint.path / 'config.json'
    preprocessor = read_json(path)
    timm_ids = checkpoint.setting('timm_model_ids')
    if not isinstance(timm_ids, list) or not all(isinstance(name, str) for name in timm_ids):
        msg = f'{where}: timm_model_ids is {timm_ids!r}, allowed is a list of names'
        raise CheckpointError(msg)
    strategy = checkpoint.config.get('image_resize_strategy', _SUPPORTED_RESIZE)
    if strategy != _SUPPORTED_RESIZE:
        msg = f'{where}: image_resize_strategy is {strategy!r}, supported is {_SUPPORTED_RESIZE}'
        raise CheckpointError(msg)
    count = 2 if checkpoint.config.get('use_fused_vision_backbone', len(timm_ids) == 2) else 1
    sizes = _vectors(preprocessor, path, 'input_sizes', count)
    heads = tower_heads(timm_ids, where) if heads is None else heads
    if len(timm_ids) != count or len(heads) != count:
        msg = (
            f'{checkpoint.path}: {count} vision towers need as many timm_model_ids and heads, got '
            f'{list(timm_ids)} and {list(heads)}'
        )
        raise CheckpointError(msg)
    towers = tuple(
        read_tower_sizes(
            checkpoint,
            TOWER_PREFIXES[i],
            timm_ids[i],
            heads=heads[i],
            image_size=check_integer(sizes[i][-1], 1, LARGEST_IMAGE, f'{path}: input_sizes'),
        )
        for i in range(count)
    )
    if len({tower.grid for tower in towers}) != 1 or len({s[-1] for s in sizes}) != 1:
        msg = f'{path}: the towers see images of {sizes} and must see the same patches'
        raise CheckpointError(msg)
    llama = _llama_config(checkpoint)
    return NetworkSizes(
        towers=towers,
        means=_vectors(preprocessor, path, 'means', count),
        stds=_vectors(preprocessor, path, 'stds', count),
        projector=_projector_widths(
            checkpoint, sum(tower.width for tower in towers), llama.hidden_size
        ),
        llama=llama,
    )


def _vectors(
    content: Mapping[str, Any], path: Path, key: str, count: int
) -> tuple[tuple[float, ...], ...]:
    value = content.get(key)
    if not isinstance(value, list) or len(value) != count:
        msg = f'{path}: {key} is {value!r}, allowed is a list of {count}, one per vision tower'
        raise CheckpointError(msg)
    for vector in value:
        check_numbers(vector, 3, f'{path}: {key}')
    return tuple(tuple(vector) for vector in value)


def _projector_widths(checkpoint: Checkpoint, inputs: int, outputs: int) -> tuple[int, ...]:
    """Three layers after fused towers, else two; only the width between them is free."""
    layers = 3 if 'projector.fc3.weight' in checkpoint.tensors else 2
    hidden = [checkpoint.length(f'projector.fc{i + 1}.weight', 0) for i in range(layers - 1)]
    return (inputs, *hidden, outputs)


def _llama_config(checkpoint: Checkpoint) -> LlamaConfig:
    """Build the decoder's configuration; what text_config leaves out is LlamaConfig's default."""
    where = checkpoint.path / 'config.json'
    text = checkpoint.setting('text_config')
    if not isinstance(text, dict) or text.get('model_type', 'llama') != 'llama':
        kind = text.get('model_type') if isinstance(text, dict) else type(text).__name__
        msg = f'{where}: text_config.model_type is {kind!r}, supported is llama'
        raise CheckpointError(msg)
    known = {key: value for key, value in text.items() if key not in ('model_type', 'auto_map')}
    for key, largest in _TEXT_RANGES.items():
        if known.get(key) is not None:
            check_integer(known[key], 1, largest, f'{where}: text_config.{key}')
    try:
        llama = LlamaConfig(**known)
    except Exception as error:  # the library's validators raise what they like
        msg = f'{where}: text_config is not a Llama configuration: {error}'
        raise CheckpointError(msg) from error
    stored = checkpoint.count_blocks('language_model.model.layers')
    if llama.num_hidden_layers > stored:
        msg = (
            f'{where}: text_config.num_hidden_layers is {llama.num_hidden_layers}; '
            f'{checkpoint.weights_file} has {stored}'
        )
        raise CheckpointError(msg)
    return llama


def guess_chunk_size(datasets: Sequence[str], action_dim: int, proprio_dim: int | None) -> int:
    """Return the chunk size that OpenVLA-OFT's training code fixes per robot.

    No file of a checkpoint holds it. ALOHA has 25 actions, Bridge 5, LIBERO 8; names of data sets
    decide, then the sizes of action and proprioception (14 and 14, 7 and 7, 7 and 8).

    Raises:
        CheckpointError: Neither says it.
    """
    for name, size in (('libero', 8), ('aloha', 25), ('bridge', 5)):
        if datasets and all(name in dataset.lower() for dataset in datasets):
            return size
    by_sizes = {(14, 14): 25, (7, 7): 5, (7, 8): 8}
    size = by_sizes.get((action_dim, proprio_dim or 0), 0)
    if not size:
        msg = (
            f'the chunk size is not known for {action_dim} action dimensions, '
            f'{proprio_dim or "no"} proprioception values and data sets {", ".join(datasets)}: '
            'set openvla.chunk_size in policy.yaml'
        )
        raise CheckpointError(msg)
    return size


def guess_normalization(dataset: str, action_dim: int, statistics: Mapping[str, Any]) -> str:
    """Return ``bounds`` for ALOHA and statistics without quantiles, else ``bounds_q99``."""
    action = statistics.get('action')
    quantiles = isinstance(action, Mapping) and 'q01' in action
    if not quantiles or 'aloha' in dataset.lower() or action_dim == 14:
        return 'bounds'
    return 'bounds_q99'


def read_token_bins(checkpoint: Checkpoint, sizes: NetworkSizes) -> tuple[int, int]:
    """Return vocabulary without padding and number of bin edges of discrete action tokens.

    Raises:
        CheckpointError: config.json holds something else than whole numbers.
    """
    where, vocabulary = checkpoint.path / 'config.json', sizes.llama.vocab_size
    padding = checkpoint.config.get('pad_to_multiple_of', 64)
    bins = checkpoint.config.get('n_action_bins', 256)
    check_integer(padding, 0, vocabulary, f'{where}: pad_to_multiple_of')
    check_integer(bins, 2, vocabulary, f'{where}: n_action_bins')
    return vocabulary - padding, bins
