"""Saliency read with a thin matmul."""

import torch

from safe_vla_ros.pruning.saliency import attention_saliency

BATCH, HEADS, ROWS, KEYS, WIDTH = 2, 4, 5, 11, 8


def make_heads(groups=HEADS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(BATCH, HEADS, ROWS, WIDTH, generator=generator).to(dtype)
    key = torch.randn(BATCH, groups, KEYS, WIDTH, generator=generator).to(dtype)
    return query, key


def plain_saliency(query, key, columns, bias=0.0):
    scores = query.float() @ key.float().transpose(2, 3) / WIDTH**0.5 + bias
    return scores.softmax(-1).mean(1).mean(1)[:, columns]


def test_equals_head_and_row_mean_of_the_whole_softmax():
    query, key = make_heads()

    saliency = attention_saliency(query, key, columns=slice(2, 9), scaling=WIDTH**-0.5)

    torch.testing.assert_close(saliency, plain_saliency(query, key, slice(2, 9)))


def test_visual_share_is_not_renormalised():
    query, key = make_heads()

    whole = attention_saliency(query, key, columns=slice(0, KEYS), scaling=0.5)
    part = attention_saliency(query, key, columns=slice(2, 9), scaling=0.5)

    torch.testing.assert_close(whole.sum(1), torch.ones(BATCH))
    torch.testing.assert_close(part, whole[:, 2:9])


def test_grouped_keys_serve_consecutive_heads():
    query, key = make_heads(groups=2)

    grouped = attention_saliency(query, key, columns=slice(0, KEYS), scaling=WIDTH**-0.5)

    repeated = key.repeat_interleave(2, dim=1)
    torch.testing.assert_close(grouped, plain_saliency(query, repeated, slice(0, KEYS)))


def test_a_forbidden_key_gets_no_saliency():
    query, key = make_heads()
    bias = torch.zeros(ROWS, KEYS)
    bias[:, 4] = -torch.inf

    saliency = attention_saliency(
        query, key, columns=slice(0, KEYS), scaling=WIDTH**-0.5, bias=bias
    )

    assert (saliency[:, 4] == 0).all()
    torch.testing.assert_close(saliency, plain_saliency(query, key, slice(0, KEYS), bias))


def test_bfloat16_heads_give_float32_saliency_of_float32_scores():
    query, key = make_heads(dtype=torch.bfloat16)

    saliency = attention_saliency(query, key, columns=slice(0, KEYS), scaling=WIDTH**-0.5)

    assert saliency.dtype == torch.float32
    torch.testing.assert_close(saliency, plain_saliency(query, key, slice(0, KEYS)))
