"""What a CogACT directory says about its model, read without loading weights.

The directory is that of its training code: ``config.json``, ``dataset_statistics.json`` and one
``checkpoints/*.pt``. Its keys get the names that OpenVLA's have, because the two share everything
but the head; messages keep the file's own names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.checkpoint_tensors import StoredTensor
from safe_vla_ros.policies.ddim import check_steps
from safe_vla_ros.policies.diffusion_transformer import DitSizes
from safe_vla_ros.policies.openvla_config import LONGEST_PROMPT, TOWER_PREFIXES, NetworkSizes
from safe_vla_ros.policies.prompt import PROMPT
from safe_vla_ros.policies.pt_file import read_groups
from safe_vla_ros.policies.spec import (
    LARGEST_CHUNK,
    POLICY_FILE,
    check_integer,
    check_numbers,
    read_config,
    read_policy_group,
)
from safe_vla_ros.policies.vision_sizes import TowerSizes, read_tower_sizes

HEAD_PREFIX = 'action_model.net.'
ACTION_DIM = 7
"""Translation, rotation and gripper of one end effector; the gripper's rule counts on it."""

_NATIVE_TOWERS = ('vision_backbone.dino_featurizer', 'vision_backbone.siglip_featurizer')
_TIMM_IDS = ('vit_large_patch14_reg4_dinov2.lvd142m', 'vit_so400m_patch14_siglip_224')
_TIMM_HEADS = (16, 16)
_SUPPORTED_VLM = 'dinosiglip-224px'
"""Part of the name of the only base that CogACT was trained on: both towers, resize-naive."""
_MEANS = ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
_STDS = ((0.229, 0.224, 0.225), (0.5, 0.5, 0.5))
_LLAMA_HEAD_WIDTH = 128
_LLAMA_EPSILON = 1e-5
"""Llama 2's own. OpenVLA's export left it out of its config and runs with 1e-6."""
_LONGEST_SEQUENCE = 2048
_DIT_HEADS = {384: 4, 768: 12, 1024: 16}
"""Attention heads of DiT-S, DiT-B and DiT-L by their width."""
_FREQUENCIES = 256
_LARGEST_SIZE = 2**20
_MOST_HEADS = 1024
_LARGEST_GUIDANCE = 100.0

_GROUPS = {
    'vision_backbone': ': the towers were frozen in training and are not stored',
    'projector': '',
    'llm_backbone': '',
    'action_model': ', so it is no CogACT checkpoint',
}
_IGNORED_GROUPS = ('ema_diffusion',)
"""Averages that training keeps; the published policy samples from ``action_model``."""
_UNUSED = re.compile(
    r'(vision_backbone\.\w+_featurizer\.(norm|attn_pool)\..*'
    r'|llm_backbone\.llm\.lm_head\.weight'
    r'|.*rotary_emb\.inv_freq'
    r'|action_model\.net\.history_embedder\..*)$'
)
"""Tensors that no pass uses."""


@dataclass(frozen=True)
class CogActOptions:
    """What the files of a checkpoint leave open; the group ``cogact`` of its ``policy.yaml``.

    Attributes:
        cfg_scale: Strength of the guidance; 1 runs without it.
        ddim_steps: Denoising steps.
        tokenizer: ``tokenizer.json`` or its directory, relative to the checkpoint's.
        checkpoint: File in ``checkpoints/``; None takes the only one.
        prompt: Text with ``{instruction}`` in it.
        vision_heads: Attention heads of DINOv2 and SigLIP.
        llm_heads: Attention heads of the decoder; None is one per 128 of its width.
        dit_heads: Attention heads of the action head; None takes them from its width.
    """

    cfg_scale: float = 1.5
    ddim_steps: int = 10
    tokenizer: str = '.'
    checkpoint: str | None = None
    prompt: str = PROMPT
    vision_heads: tuple[int, ...] = _TIMM_HEADS
    llm_heads: int | None = None
    dit_heads: int | None = None


@dataclass(frozen=True)
class CogActSizes:
    """Sizes of the network and of its action head."""

    network: NetworkSizes
    head: DitSizes


def read_options(directory: Path) -> CogActOptions:
    """Read the group ``cogact`` of ``policy.yaml``; defaults where there is none.

    Raises:
        CheckpointError: A key or a value is not allowed.
    """
    known = [field.name for field in fields(CogActOptions)]
    group = dict(read_policy_group(directory, 'cogact', known))
    where = f'{directory / POLICY_FILE}: cogact'
    scale = check_numbers([group.get('cfg_scale', 1.5)], 1, f'{where}.cfg_scale')[0]
    if not 1.0 <= scale <= _LARGEST_GUIDANCE:
        msg = f'{where}.cfg_scale is {scale:g}, allowed is 1 to {_LARGEST_GUIDANCE:g}'
        raise CheckpointError(msg)
    group['cfg_scale'] = scale
    check_steps(group.get('ddim_steps', 10), f'{where}.ddim_steps')
    for key in ('tokenizer', 'checkpoint', 'prompt'):
        value = group.get(key, '')
        if not isinstance(value, str) or len(value) > LONGEST_PROMPT:
            msg = f'{where}.{key} is {str(value)[:80]!r}, allowed is a text'
            raise CheckpointError(msg)
    if '{instruction}' not in group.get('prompt', PROMPT):
        msg = f'{where}.prompt is {group["prompt"]!r}, allowed is a text with {{instruction}} in it'
        raise CheckpointError(msg)
    heads = group.get('vision_heads', list(_TIMM_HEADS))
    if not isinstance(heads, list) or len(heads) != len(_TIMM_HEADS):
        msg = f'{where}.vision_heads is {heads!r}, allowed are two whole numbers'
        raise CheckpointError(msg)
    group['vision_heads'] = tuple(
        check_integer(count, 1, _MOST_HEADS, f'{where}.vision_heads') for count in heads
    )
    for key in ('llm_heads', 'dit_heads'):
        if key in group:
            check_integer(group[key], 1, _MOST_HEADS, f'{where}.{key}')
    return CogActOptions(**group)


def open_cogact(path: Path, options: CogActOptions) -> Checkpoint:
    """Read ``config.json`` and the table of the weights; no weights are in memory.

    Args:
        path: The checkpoint directory.
        options: What its files leave open.

    Returns:
        The opened checkpoint, its tensors by the names that OpenVLA's have.

    Raises:
        CheckpointError: A file is missing, broken, or of another model.
    """
    config = read_config(path)
    base = config['vla'].get('base_vlm') if isinstance(config.get('vla'), dict) else None
    if not isinstance(base, str) or _SUPPORTED_VLM not in base:
        msg = (
            f'{path / "config.json"}: vla.base_vlm is {base!r}, supported is a name with '
            f'{_SUPPORTED_VLM} in it'
        )
        raise CheckpointError(msg)
    file = _weights_file(path, options.checkpoint)
    groups = read_groups(file)
    for group, remark in _GROUPS.items():
        if group not in groups:
            msg = f'{file} has no group {group}{remark}'
            raise CheckpointError(msg)
    tensors: dict[str, StoredTensor] = {}
    for group, stored in groups.items():
        if group in _IGNORED_GROUPS:
            continue
        if group not in _GROUPS:
            msg = f'{file} has a group {group}, which belongs to no part of CogACT'
            raise CheckpointError(msg)
        tensors.update((_our_name(tensor), tensor) for tensor in stored.values())
    return Checkpoint(path, config, tensors, file, _stored_name)


def _weights_file(path: Path, name: str | None) -> Path:
    folder = path / 'checkpoints'
    if name is not None:
        if Path(name).name != name or not name.endswith('.pt'):
            msg = (
                f'{path / POLICY_FILE}: cogact.checkpoint is {name!r}, allowed is the name of a '
                f'.pt file in {folder}'
            )
            raise CheckpointError(msg)
        return folder / name
    found = sorted(folder.glob('*.pt'))
    if len(found) != 1:
        names = ', '.join(file.name for file in found) or 'none'
        msg = (
            f'{folder} must hold one .pt file, it holds {names}; with several, name one as '
            f'cogact.checkpoint in {POLICY_FILE}'
        )
        raise CheckpointError(msg)
    return found[0]


def _our_name(stored: StoredTensor) -> str:
    """Return OpenVLA's name of a tensor.

    Raises:
        CheckpointError: It is in no place where CogACT has tensors.
    """
    key = stored.key
    for theirs, ours in zip(_NATIVE_TOWERS, TOWER_PREFIXES, strict=True):
        if key.startswith(f'{theirs}.'):
            return ours + re.sub(r'\.gamma$', '.scale_factor', key.removeprefix(theirs))
    layer = re.fullmatch(r'projector\.projector\.(\d)\.(weight|bias)', key)
    if layer and int(layer[1]) % 2 == 0:
        return f'projector.fc{int(layer[1]) // 2 + 1}.{layer[2]}'
    if key.startswith('llm_backbone.llm.'):
        return key.replace('llm_backbone.llm.', 'language_model.', 1)
    if key.startswith(HEAD_PREFIX):
        return key
    msg = f'{stored.path}: {key} belongs to no part of CogACT'
    raise CheckpointError(msg)


def _stored_name(ours: str) -> str:
    """Return what the file calls a tensor; undoes ``_our_name``."""
    for theirs, prefix in zip(_NATIVE_TOWERS, TOWER_PREFIXES, strict=True):
        if ours.startswith(f'{prefix}.') or ours == prefix:
            return theirs + ours.removeprefix(prefix).replace('.scale_factor', '.gamma')
    layer = re.fullmatch(r'projector\.fc(\d)\.(\w+)', ours)
    if layer:
        return f'projector.projector.{2 * (int(layer[1]) - 1)}.{layer[2]}'
    return re.sub(r'^language_model\.', 'llm_backbone.llm.', ours)


def read_sizes(checkpoint: Checkpoint, options: CogActOptions) -> CogActSizes:
    """Read every size from the weights' shapes, and compare them with config.json.

    Args:
        checkpoint: From ``open_cogact``.
        options: Attention heads, which no shape shows.

    Raises:
        CheckpointError: A tensor is missing, or shapes and configuration contradict each other.
    """
    towers = tuple(
        _read_tower(checkpoint, *tower)
        for tower in zip(TOWER_PREFIXES, _TIMM_IDS, options.vision_heads, strict=True)
    )
    if len({(tower.grid, tower.image_size) for tower in towers}) != 1:
        grids = ' and '.join(f'{tower.grid} of {tower.patch} pixels' for tower in towers)
        msg = f'{checkpoint.weights_file}: the towers see {grids} patches per side; must be equal'
        raise CheckpointError(msg)
    llama = _read_llama(checkpoint, options)
    widths = [checkpoint.length(f'projector.fc{layer}.weight', 0) for layer in (1, 2)]
    network = NetworkSizes(
        towers=towers,
        means=_MEANS,
        stds=_STDS,
        projector=(sum(tower.width for tower in towers), *widths, llama.hidden_size),
        llama=llama,
    )
    sizes = CogActSizes(network, _read_head(checkpoint, options, llama.hidden_size))
    _refuse_unknown_parts(checkpoint, network)
    return sizes


def _read_tower(checkpoint: Checkpoint, prefix: str, timm_id: str, heads: int) -> TowerSizes:
    positions = checkpoint.length(f'{prefix}.pos_embed', 1)
    patch = checkpoint.length(f'{prefix}.patch_embed.proj.weight', 3)
    size = patch * math.isqrt(positions)
    return read_tower_sizes(checkpoint, prefix, timm_id, heads=heads, image_size=size)


def _read_llama(checkpoint: Checkpoint, options: CogActOptions) -> LlamaConfig:
    model = 'language_model.model'
    first = f'{model}.layers.0'
    width = checkpoint.length(f'{model}.embed_tokens.weight', 1)
    heads = options.llm_heads or width // _LLAMA_HEAD_WIDTH
    keys = checkpoint.length(f'{first}.self_attn.k_proj.weight', 0)
    known = width % _LLAMA_HEAD_WIDTH == 0 or options.llm_heads is not None
    if not known or width % (2 * heads) or keys % (width // heads):
        msg = (
            f'{checkpoint.weights_file}: {heads} attention heads do not divide a decoder {width} '
            f'wide with keys {keys} wide; set cogact.llm_heads in {POLICY_FILE}'
        )
        raise CheckpointError(msg)
    values: dict[str, Any] = {
        'vocab_size': checkpoint.length(f'{model}.embed_tokens.weight', 0),
        'intermediate_size': checkpoint.length(f'{first}.mlp.gate_proj.weight', 0),
        'num_hidden_layers': checkpoint.count_blocks(f'{model}.layers'),
        'num_key_value_heads': keys // (width // heads),
    }
    for name, value in values.items():
        check_integer(value, 1, _LARGEST_SIZE, f'{checkpoint.weights_file}: {name}')
    return LlamaConfig(
        hidden_size=width,
        num_attention_heads=heads,
        max_position_embeddings=_LONGEST_SEQUENCE,
        rms_norm_eps=_LLAMA_EPSILON,
        **values,
    )


def _read_head(checkpoint: Checkpoint, options: CogActOptions, condition_width: int) -> DitSizes:
    def length(name: str, axis: int) -> int:
        return checkpoint.length(f'{HEAD_PREFIX}{name}', axis)

    where, config = checkpoint.path / 'config.json', checkpoint.config
    width = length('x_embedder.linear.weight', 0)
    heads = options.dit_heads or _DIT_HEADS.get(width)
    if heads is None or width % heads:
        known = ', '.join(f'{heads} of a width of {width}' for width, heads in _DIT_HEADS.items())
        msg = (
            f'{checkpoint.weights_file}: the attention heads of an action head {width} wide are '
            f'not known (known are {known}); set cogact.dit_heads in {POLICY_FILE}'
        )
        raise CheckpointError(msg)
    sizes = DitSizes(
        width=width,
        blocks=checkpoint.count_blocks(f'{HEAD_PREFIX}blocks'),
        heads=heads,
        mlp_width=length('blocks.0.mlp.fc1.weight', 0),
        frequencies=length('t_embedder.mlp.0.weight', 1),
        condition_width=length('z_embedder.linear.weight', 1),
        chunk_size=length('positional_embedding', 0) - 1,
        action_dim=length('x_embedder.linear.weight', 1),
    )
    check_integer(sizes.chunk_size, 1, LARGEST_CHUNK, f'{checkpoint.weights_file}: chunk size')
    for name, size in vars(sizes).items():
        check_integer(size, 1, _LARGEST_SIZE, f'{checkpoint.weights_file}: {name} of action_model')
    for got, wanted, what in (
        (sizes.action_dim, ACTION_DIM, 'numbers per action'),
        (sizes.condition_width, condition_width, 'inputs of z_embedder for such a decoder'),
        (sizes.frequencies, _FREQUENCIES, 'timestep frequencies'),
    ):
        if got != wanted:
            msg = f'{checkpoint.weights_file}: action_model has {got} {what}, expected {wanted}'
            raise CheckpointError(msg)
    for key, wanted in (
        ('action_dim', sizes.action_dim),
        ('future_action_window_size', sizes.chunk_size - 1),
        ('past_action_window_size', 0),
    ):
        if config.get(key, wanted) != wanted:
            msg = f'{where}: {key} is {config[key]!r}; the weights and this program take {wanted}'
            raise CheckpointError(msg)
    return sizes


def _refuse_unknown_parts(checkpoint: Checkpoint, sizes: NetworkSizes) -> None:
    """Refuse weights outside the parts whose loading compares every key."""
    compared = ['projector.', 'language_model.model.', HEAD_PREFIX]
    for tower in sizes.towers:
        names = ('patch_embed.proj.', 'pos_embed', 'cls_token', 'reg_token', 'blocks.')
        compared += [f'{tower.prefix}.{name}' for name in names]
    inside = {key for key in checkpoint.tensors if key.startswith(tuple(compared))}
    refuse_surplus(checkpoint, ('',), inside)


def refuse_surplus(checkpoint: Checkpoint, prefixes: tuple[str, ...], known: set[str]) -> None:
    """Refuse tensors that no pass uses, but for those that published checkpoints have.

    Args:
        checkpoint: From ``open_cogact``.
        prefixes: Beginnings of the keys that are looked at.
        known: Keys that are used.

    Raises:
        CheckpointError: There is one; names its file and its key there.
    """
    for key, stored in checkpoint.tensors.items():
        if key.startswith(prefixes) and key not in known and not _UNUSED.match(stored.key):
            msg = f'{stored.path}: {stored.key} belongs to no part of CogACT of these sizes'
            raise CheckpointError(msg)
