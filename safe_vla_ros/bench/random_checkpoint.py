"""Writes an OpenVLA-OFT checkpoint of random weights in the official on-disk format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from safe_vla_ros.bench.speed_models import ACTION_DIM, HEAD_BLOCKS, PROPRIO_DIM
from safe_vla_ros.bench.speed_weights import RandomWeights
from safe_vla_ros.policies.checkpoint import INDEX_FILE, STATISTICS_FILE
from safe_vla_ros.policies.heads import GeluProjector, L1ActionHead
from safe_vla_ros.policies.openvla_config import NetworkSizes
from safe_vla_ros.policies.vision_sizes import DINOV2, TowerSizes

SHARD_BYTES = 2 * 10**9
_DATASET = 'libero_random'


def write_checkpoint(
    path: Path,
    sizes: NetworkSizes,
    *,
    dtype: torch.dtype,
    seed: int,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Write the checkpoint; never holds more than one shard.

    Args:
        path: Directory, made when missing.
        sizes: Sizes of the network.
        dtype: Of the weights.
        seed: Of the noise.
        shard_bytes: Largest shard, bytes (a larger tensor gets its own).

    Returns:
        Bytes of all weights.
    """
    path.mkdir(parents=True, exist_ok=True)
    weights = RandomWeights(seed, dtype)
    shards: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    written = held = number = 0

    def flush() -> None:
        nonlocal held, number
        number += 1
        name = f'model-{number:05d}.safetensors'
        save_file(shard, path / name, metadata={'format': 'pt'})
        shards.update(dict.fromkeys(shard, name))
        shard.clear()
        held = 0

    for key, shape in _network_tensors(sizes):
        tensor = torch.empty(shape, dtype=dtype)
        if shard and held + tensor.nbytes > shard_bytes:
            flush()
        weights.fill(key, tensor)
        shard[key] = tensor
        held += tensor.nbytes
        written += tensor.nbytes
    flush()
    _write_json(path / INDEX_FILE, {'metadata': {'total_size': written}, 'weight_map': shards})
    width = sizes.llama.hidden_size
    for name, module in (
        ('action_head', L1ActionHead(width, width, ACTION_DIM, HEAD_BLOCKS)),
        ('proprio_projector', GeluProjector((PROPRIO_DIM, width, width))),
    ):
        module.to(dtype)
        tensors = {f'module.{key}': value for key, value in module.state_dict().items()}
        for key, value in tensors.items():
            weights.fill(key, value)
            written += value.nbytes
        torch.save(tensors, path / f'{name}--0_checkpoint.pt')
    _write_settings(path, sizes, dtype)
    return written


def _network_tensors(sizes: NetworkSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    for tower in sizes.towers:
        yield from _tower_tensors(tower)
    for index, (inputs, outputs) in enumerate(
        zip(sizes.projector[:-1], sizes.projector[1:], strict=True), start=1
    ):
        yield f'projector.fc{index}.weight', (outputs, inputs)
        yield f'projector.fc{index}.bias', (outputs,)
    llama = sizes.llama
    width, mlp = llama.hidden_size, llama.intermediate_size
    yield 'language_model.model.embed_tokens.weight', (llama.vocab_size, width)
    for layer in range(llama.num_hidden_layers):
        start = f'language_model.model.layers.{layer}'
        for name in 'qkvo':
            yield f'{start}.self_attn.{name}_proj.weight', (width, width)
        yield f'{start}.mlp.gate_proj.weight', (mlp, width)
        yield f'{start}.mlp.up_proj.weight', (mlp, width)
        yield f'{start}.mlp.down_proj.weight', (width, mlp)
        yield f'{start}.input_layernorm.weight', (width,)
        yield f'{start}.post_attention_layernorm.weight', (width,)
    yield 'language_model.model.norm.weight', (width,)
    yield 'language_model.lm_head.weight', (llama.vocab_size, width)


def _tower_tensors(tower: TowerSizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name a timm tower's tensors, the last block included, which is stored and never used."""
    start, width, mlp = tower.prefix, tower.width, tower.mlp_width
    yield f'{start}.patch_embed.proj.weight', (width, 3, tower.patch, tower.patch)
    yield f'{start}.patch_embed.proj.bias', (width,)
    yield f'{start}.pos_embed', (1, tower.grid**2, width)
    if tower.kind == DINOV2:
        yield f'{start}.cls_token', (1, 1, width)
        yield f'{start}.reg_token', (1, tower.registers, width)
    for block in range(tower.blocks + 1):
        for name, rows, columns in (
            ('attn.qkv', 3 * width, width),
            ('attn.proj', width, width),
            ('mlp.fc1', mlp, width),
            ('mlp.fc2', width, mlp),
        ):
            yield f'{start}.blocks.{block}.{name}.weight', (rows, columns)
            yield f'{start}.blocks.{block}.{name}.bias', (rows,)
        for name in ('norm1', 'norm2'):
            yield f'{start}.blocks.{block}.{name}.weight', (width,)
            yield f'{start}.blocks.{block}.{name}.bias', (width,)
        if tower.layer_scale:
            for name in ('ls1', 'ls2'):
                yield f'{start}.blocks.{block}.{name}.scale_factor', (width,)
    yield f'{start}.norm.weight', (width,)
    yield f'{start}.norm.bias', (width,)


def _write_settings(path: Path, sizes: NetworkSizes, dtype: torch.dtype) -> None:
    llama = sizes.llama
    image = [3, sizes.towers[0].image_size, sizes.towers[0].image_size]
    timm_ids = [
        f'vit_random_h{tower.heads}_patch{tower.patch}_{tower.kind}' for tower in sizes.towers
    ]
    config = {
        'model_type': 'openvla',
        'arch_specifier': 'no-align+fused-gelu-mlp',
        'image_resize_strategy': 'resize-naive',
        'use_fused_vision_backbone': True,
        'timm_model_ids': timm_ids,
        'timm_override_act_layers': [None] * len(timm_ids),
        'image_sizes': image[1:],
        'pad_token_id': llama.pad_token_id,
        'pad_to_multiple_of': 64,
        'n_action_bins': 256,
        'torch_dtype': str(dtype).removeprefix('torch.'),
        'text_config': {
            'model_type': 'llama',
            'hidden_size': llama.hidden_size,
            'intermediate_size': llama.intermediate_size,
            'num_hidden_layers': llama.num_hidden_layers,
            'num_attention_heads': llama.num_attention_heads,
            'pad_token_id': llama.pad_token_id,
            'vocab_size': llama.vocab_size,
        },
    }
    preprocessor = {
        'image_resize_strategy': 'resize-naive',
        'input_sizes': [image] * len(timm_ids),
        'interpolations': ['bicubic'] * len(timm_ids),
        'means': [list(mean) for mean in sizes.means],
        'stds': [list(std) for std in sizes.stds],
    }
    bounds = {'action': ACTION_DIM, 'proprio': PROPRIO_DIM}
    statistics = {
        name: {'q01': [-1.0] * count, 'q99': [1.0] * count, 'min': [-1.0] * count}
        | {'max': [1.0] * count, 'mask': [True] * count}
        for name, count in bounds.items()
    }
    _write_json(path / 'config.json', config)
    _write_json(path / 'preprocessor_config.json', preprocessor)
    _write_json(path / STATISTICS_FILE, {_DATASET: statistics})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
