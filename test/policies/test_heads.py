"""Projectors, action head and action tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.heads import (
    GeluProjector,
    L1ActionHead,
    build_action_head,
    build_proprio_projector,
    decode_action_tokens,
)

FILE = Path('action_head--1_checkpoint.pt')


def test_action_tokens_decode_to_the_published_bin_centres():
    tokens = torch.tensor([31999, 31998, 31745, 31744, 31743, 5, 32000, 32063])
    values = decode_action_tokens(tokens, 32000, 256)
    step = 2 / 255
    lowest, highest = -1 + step / 2, 1 - step / 2
    expected = [lowest, lowest + step, highest, highest, highest, highest, lowest, lowest]
    np.testing.assert_allclose(values, expected, atol=1e-12)


def test_the_head_reads_action_by_action():
    torch.manual_seed(0)
    head = L1ActionHead(width=6, hidden=10, action_dim=3, blocks=2)
    states = torch.randn(4 * 3, 6)
    chunk = head(states)
    assert chunk.shape == (4, 3)
    assert chunk.dtype == torch.float32
    torch.testing.assert_close(chunk[2:3], head(states[6:9]))


def test_projectors_use_the_exact_gelu():
    projector = GeluProjector((1, 1, 1))
    with torch.no_grad():
        for parameter in projector.parameters():
            parameter.fill_(1.0)
    value = projector(torch.tensor([[1.0]])).item()
    exact = 2.0 * 0.5 * (1 + torch.erf(torch.tensor(2.0) / 2**0.5).item()) + 1.0
    assert value == pytest.approx(exact, abs=1e-6)


def test_a_diffusion_head_is_refused_by_name():
    with pytest.raises(CheckpointError, match='is a diffusion head'):
        build_action_head({'noise_predictor.x': torch.zeros(1)}, FILE, 8)


@pytest.mark.parametrize(
    ('tensors', 'sentence'),
    [
        ({}, 'model.fc2.weight is missing'),
        ({'model.fc2.weight': torch.zeros(7)}, r'model.fc2.weight has shape \[7\], not a matrix'),
        (
            {'model.fc2.weight': torch.zeros(7, 4), 'model.fc1.weight': torch.zeros(4, 55)},
            'takes 55 inputs; 7 action dimensions of a decoder 8 wide are 56',
        ),
    ],
)
def test_a_head_that_does_not_fit_is_named(tensors, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        build_action_head(tensors, FILE, 8)


def test_a_proprio_projector_of_another_decoder_is_refused():
    tensors = {'fc1.weight': torch.zeros(8, 3), 'fc2.weight': torch.zeros(9, 8)}
    with pytest.raises(CheckpointError, match='has 9 outputs, the decoder is 8 wide'):
        build_proprio_projector(tensors, FILE, 8)
