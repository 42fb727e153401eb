"""Sizes of a pi0 or pi0.5 network, read from the shapes of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

from transformers import GemmaConfig, SiglipVisionConfig

from safe_vla_ros.errors import CheckpointError

if TYPE_CHECKING:
    from safe_vla_ros.policies.checkpoint import Checkpoint
    from safe_vla_ros.policies.pi_facts import PiFacts

NORM_EPSILON = 1e-6
ACTIVATION = 'gelu_pytorch_tanh'
"""Of SigLIP in PaliGemma, other than in OpenVLA, and of both Gemmas."""

_SO400M_WIDTH, _SO400M_HEADS = 1152, 16
PALIGEMMA = 'paligemma_with_expert.paligemma'
VISION = f'{PALIGEMMA}.model.vision_tower.vision_model'
PROJECTOR = f'{PALIGEMMA}.model.multi_modal_projector.linear'
PREFIX = f'{PALIGEMMA}.model.language_model'
EXPERT = 'paligemma_with_expert.gemma_expert.model'


@dataclass(frozen=True)
class PiSizes:
    """Sizes of all parts.

    Attributes:
        kind: ``pi0`` or ``pi05``.
        vision: Configuration of SigLIP.
        prefix: Configuration of the language model that runs images and prompt.
        expert: Configuration of the action expert; as many layers and heads as ``prefix``.
        action_width: Columns that are denoised.
        state_width: Numbers of the state that pi0 takes.
        periods: Shortest and longest period of the time embedding.
    """

    kind: str
    vision: SiglipVisionConfig
    prefix: GemmaConfig
    expert: GemmaConfig
    action_width: int
    state_width: int
    periods: tuple[float, float]


def key_prefix(checkpoint: Checkpoint) -> str:
    """Return what stands before every key: ``model.`` (LeRobot) or nothing (openpi, older ones)."""
    return 'model.' if 'model.action_in_proj.weight' in checkpoint.tensors else ''


def read_sizes(
    checkpoint: Checkpoint, start: str, vision_heads: int | None, facts: PiFacts
) -> PiSizes:
    """Read the sizes; the weights' other shapes must then agree with them.

    Args:
        checkpoint: The opened directory.
        start: From ``key_prefix``.
        vision_heads: Attention heads of SigLIP; None knows So400m's.
        facts: What the directory says.

    Raises:
        CheckpointError: A key is missing, or shapes contradict each other.
    """
    prefix = _gemma(checkpoint, f'{start}{PREFIX}', _vocabulary(checkpoint, start))
    expert = _gemma(checkpoint, f'{start}{EXPERT}', prefix.vocab_size)
    geometry = [
        (one.num_hidden_layers, one.num_attention_heads, one.head_dim) for one in (prefix, expert)
    ]
    if geometry[0] != geometry[1]:
        msg = (
            f'{checkpoint.weights_file}: layers, heads and their width are {geometry[0]} in the '
            f'language model and {geometry[1]} in the action expert; they must be equal'
        )
        raise CheckpointError(msg)
    return PiSizes(
        kind=facts.kind,
        vision=_vision(checkpoint, f'{start}{VISION}', vision_heads),
        prefix=prefix,
        expert=expert,
        action_width=facts.action_width,
        state_width=facts.state_width,
        periods=facts.periods,
    )


def embedding_key(checkpoint: Checkpoint, start: str) -> str:
    """Return the key of the text embedding; without one of its own it is the head's."""
    own = f'{start}{PREFIX}.embed_tokens.weight'
    return own if own in checkpoint.tensors else f'{start}{PALIGEMMA}.lm_head.weight'


def _vocabulary(checkpoint: Checkpoint, start: str) -> int:
    return checkpoint.length(embedding_key(checkpoint, start), 0)


def _gemma(checkpoint: Checkpoint, prefix: str, vocabulary: int) -> GemmaConfig:
    layer = f'{prefix}.layers.0'
    queries, width = (
        checkpoint.length(f'{layer}.self_attn.q_proj.weight', axis) for axis in (0, 1)
    )
    head = checkpoint.length(f'{layer}.self_attn.k_proj.weight', 0)
    if queries % head or head % 2:
        msg = (
            f'{checkpoint.weights_file}: {layer} has {queries} rows of queries and {head} of keys; '
            'the former must be a multiple of the latter, which is even'
        )
        raise CheckpointError(msg)
    return GemmaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=checkpoint.length(f'{layer}.mlp.gate_proj.weight', 0),
        num_hidden_layers=checkpoint.count_blocks(f'{prefix}.layers'),
        num_attention_heads=queries // head,
        num_key_value_heads=1,
        head_dim=head,
        hidden_act=ACTIVATION,
        rms_norm_eps=NORM_EPSILON,
        pad_token_id=0,
    )


def _vision(checkpoint: Checkpoint, prefix: str, heads: int | None) -> SiglipVisionConfig:
    key = f'{prefix}.embeddings.patch_embedding.weight'
    width, patch = checkpoint.length(key, 0), checkpoint.length(key, 3)
    positions = checkpoint.length(f'{prefix}.embeddings.position_embedding.weight', 0)
    grid = isqrt(positions)
    if heads is None:
        if width != _SO400M_WIDTH:
            msg = (
                f'{checkpoint.weights_file}: the attention heads of a SigLIP of width {width} are '
                'not known; set pi.vision_heads in policy.yaml'
            )
            raise CheckpointError(msg)
        heads = _SO400M_HEADS
    if grid * grid != positions or width % heads:
        msg = (
            f'{checkpoint.weights_file}: {prefix} has {positions} positions, width {width} and '
            f'{heads} heads; allowed are a square and a width divisible by the heads'
        )
        raise CheckpointError(msg)
    return SiglipVisionConfig(
        hidden_size=width,
        intermediate_size=checkpoint.length(f'{prefix}.encoder.layers.0.mlp.fc1.weight', 0),
        num_hidden_layers=checkpoint.count_blocks(f'{prefix}.encoder.layers'),
        num_attention_heads=heads,
        image_size=grid * patch,
        patch_size=patch,
        hidden_act=ACTIVATION,
        layer_norm_eps=NORM_EPSILON,
        vision_use_head=False,
        attn_implementation='sdpa',
    )
