"""The attention function that can be tapped."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from safe_vla_ros.policies.attention import SaliencyTap, use_tapping_attention
from safe_vla_ros.policies.stage_timer import StageTimer

LENGTH = 14
COLUMNS = slice(1, 9)


def make_model(attention, groups=2, dtype=torch.float32):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=groups,
    )
    model = LlamaModel(config).eval().to(dtype)
    if attention == 'tapping':
        use_tapping_attention(model)
    else:
        model.set_attn_implementation(attention)
    return model


def make_input():
    return torch.randn(1, LENGTH, 32, generator=torch.Generator().manual_seed(1))


def run_layer(model, hidden, **attention):
    rotary = model.rotary_emb(hidden, position_ids=torch.arange(LENGTH)[None])
    attention = {'attention_mask': None, **attention}
    return model.layers[0](hidden, position_embeddings=rotary, **attention)


def attention_weights(model, hidden, mask):
    rotary = model.rotary_emb(hidden, position_ids=torch.arange(LENGTH)[None])
    layer = model.layers[0]
    _, weights = layer.self_attn(
        layer.input_layernorm(hidden), position_embeddings=rotary, attention_mask=mask
    )
    return weights


def causal_mask():
    return torch.full((LENGTH, LENGTH), -torch.inf).triu(1)[None, None]


def make_tap(rows):
    return SaliencyTap(rows, COLUMNS, StageTimer(torch.device('cpu')))


@torch.no_grad()
def test_without_taps_the_model_is_the_sdpa_model():
    ids = torch.arange(LENGTH)[None]

    tapping = make_model('tapping')(input_ids=ids).last_hidden_state

    assert torch.equal(tapping, make_model('sdpa')(input_ids=ids).last_hidden_state)


@torch.no_grad()
def test_padding_masks_are_built_as_for_sdpa():
    ids = torch.arange(LENGTH)[None]
    padding = torch.ones_like(ids)
    padding[:, :3] = 0

    tapping = make_model('tapping')(input_ids=ids, attention_mask=padding).last_hidden_state

    plain = make_model('sdpa')(input_ids=ids, attention_mask=padding).last_hidden_state
    assert torch.equal(tapping, plain)


@torch.no_grad()
@pytest.mark.parametrize('groups', [1, 2, 4])
@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('rows', [slice(10, 13), slice(13, 14), slice(3, 6)])
def test_a_tap_reads_what_eager_attention_computes(groups, causal, rows):
    hidden = make_input()
    tap = make_tap(rows)

    run_layer(make_model('tapping', groups), hidden, is_causal=causal, saliency_tap=tap)

    mask = causal_mask() if causal else None
    weights = attention_weights(make_model('eager', groups), hidden, mask)
    torch.testing.assert_close(tap.answer, weights[:, :, rows].mean((1, 2))[:, COLUMNS])


@torch.no_grad()
@pytest.mark.parametrize('boolean', [False, True])
def test_a_tap_obeys_an_explicit_mask(boolean):
    hidden = make_input()
    tap = make_tap(slice(10, 13))
    additive = causal_mask()
    additive[..., 4] = -torch.inf
    mask = additive == 0 if boolean else additive

    run_layer(make_model('tapping'), hidden, attention_mask=mask, saliency_tap=tap)

    weights = attention_weights(make_model('eager'), hidden, additive)
    torch.testing.assert_close(tap.answer, weights[:, :, 10:13].mean((1, 2))[:, COLUMNS])
    assert tap.answer[0, 3] == 0


@torch.no_grad()
def test_a_tap_does_not_change_the_layer():
    model, hidden = make_model('tapping'), make_input()

    tapped = run_layer(model, hidden, is_causal=False, saliency_tap=make_tap(slice(10, 13)))

    assert torch.equal(tapped, run_layer(model, hidden, is_causal=False))


@torch.no_grad()
def test_without_a_mask_transformers_is_causal_unless_told_otherwise():
    model, hidden = make_model('tapping'), make_input()

    causal = run_layer(model, hidden, is_causal=True)

    assert torch.equal(run_layer(model, hidden), causal)
    assert not torch.equal(run_layer(model, hidden, is_causal=False), causal)


@torch.no_grad()
def test_zero_queries_attend_uniformly():
    model, hidden = make_model('tapping'), make_input()
    hidden[:, 10:13] = 0
    tap = make_tap(slice(10, 13))

    run_layer(model, hidden, is_causal=False, saliency_tap=tap)

    torch.testing.assert_close(tap.answer, torch.full((1, 8), 1 / LENGTH), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_bfloat16_layer_is_read_in_float32():
    tap = make_tap(slice(10, 13))

    run_layer(
        make_model('tapping', dtype=torch.bfloat16),
        make_input().bfloat16(),
        is_causal=False,
        saliency_tap=tap,
    )

    assert tap.answer.dtype == torch.float32
