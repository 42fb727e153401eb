"""Correspondence between steps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.forecast import (
    forecast_saliency,
    match_tokens,
    saliency_similarity,
    unit_tokens,
)


@given(seed=st.integers(0, 10_000), total=st.integers(1, 30), scale=st.floats(0.1, 100.0))
@settings(max_examples=50, deadline=None)
def test_the_same_tokens_forecast_the_reference_itself(seed, total, scale):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(total, 16, generator=generator)
    saliency = torch.rand(2, total, generator=generator)

    match, score = match_tokens(unit_tokens(scale * tokens), unit_tokens(tokens))

    assert torch.equal(forecast_saliency(saliency, match), saliency)
    torch.testing.assert_close(score, torch.ones(total))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_saliency_follows_tokens_that_moved(seed):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(20, 16, generator=generator)
    saliency = torch.rand(1, 20, generator=generator)
    order = torch.randperm(20, generator=generator)

    match, _ = match_tokens(unit_tokens(tokens[order]), unit_tokens(tokens))

    assert torch.equal(match, order)
    assert torch.equal(forecast_saliency(saliency, match), saliency[:, order])


def test_matching_is_float32_for_bfloat16_tokens():
    tokens = torch.randn(12, 32, generator=torch.Generator().manual_seed(0)).bfloat16()

    unit = unit_tokens(tokens)

    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(12))


def test_a_zero_token_has_no_direction_and_is_still_matched():
    tokens = torch.eye(4)
    tokens[2] = 0

    match, score = match_tokens(unit_tokens(tokens), unit_tokens(torch.eye(4)))

    assert score[2] == 0
    assert torch.isfinite(score).all()
    assert 0 <= int(match[2]) < 4


def test_similarity_is_the_cosine():
    assert saliency_similarity(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 3.0])).item() == (
        pytest.approx(0.5**0.5)
    )
    assert saliency_similarity(torch.tensor([1.0, torch.nan]), torch.ones(2)).isnan()
