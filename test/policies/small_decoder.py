"""A small Llama decoder, its inputs, and a slow pass to compare with."""

import torch
from transformers import LlamaConfig, LlamaModel

from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.decoder import run_decoder
from safe_vla_ros.pruning import SequenceLayout, make_episode
from safe_vla_ros.types import PruningSettings

# BOS | 20 visual tokens of two cameras | 5 text tokens | 6 action slots | stop
VISUAL = slice(1, 21)
CAMERAS = (12, 8)
ACTIONS = slice(26, 32)
LAST = 32
LENGTH = 33
LAYERS = 5

FULL_PASSES = {'safe': 1, 'merge': 1, 'vla_pruner': 3, 'vla_cache': 1, 'refresh': 1}
"""Steps of an episode that a method computes in full before it prunes; none for the others."""


def make_model(groups=4):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=groups,
        initializer_range=0.3,
    )
    model = LlamaModel(config).eval()
    use_tapping_attention(model)
    return model


def make_input(seed=0):
    embeds = torch.randn(1, LENGTH, 64, generator=torch.Generator().manual_seed(seed))
    embeds[:, ACTIONS] = 0
    return embeds


def make_layout(**change):
    facts = {
        'length': LENGTH,
        'visual': VISUAL,
        'tokens_per_camera': CAMERAS,
        'last_row': LAST,
        'action_rows': ACTIONS,
    }
    return SequenceLayout(**{**facts, **change})


def step(
    model,
    embeds,
    episode=None,
    *,
    causal=False,
    stamp_s=0.0,
    use_cache=False,
    patches=None,
    **change,
):
    change = {'layer': 2, 'keep_ratio': 0.25, 'refresh_threshold': 0.9, **change}
    return run_decoder(
        model,
        embeds,
        layout=make_layout(causal=causal),
        episode=make_episode() if episode is None else episode,
        settings=PruningSettings(**change),
        stamp_s=stamp_s,
        use_cache=use_cache,
        patches=patches,
    )


@torch.no_grad()
def plain_pass(model, embeds, *, causal, dropped=None, layer=2):
    """Run every row through every layer; from ``layer`` on nobody attends to dropped rows."""
    length = embeds.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    masked = allowed.clone()
    if dropped is not None:
        masked[:, dropped] = False
        masked |= torch.eye(length, dtype=torch.bool)
    rotary = model.rotary_emb(embeds, position_ids=torch.arange(length)[None])
    hidden = embeds
    for index, block in enumerate(model.layers):
        mask = allowed if index < layer else masked
        hidden = block(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
    return model.norm(hidden)


def dropped_rows(output):
    return sorted(set(range(output.length)) - set(output.positions.tolist()))
