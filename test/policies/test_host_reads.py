"""What the host reads back from the device within a step.

The decoder runs on meta tensors, which have shapes but no values: whatever reads a value, copies
one to the host, or needs one to know a shape (a boolean mask, ``nonzero``) raises.
"""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.decoder import run_decoder
from safe_vla_ros.pruning import PRUNER_NAMES, SequenceLayout, host, make_episode
from safe_vla_ros.pruning.pruners.fastv import _FastVStep
from safe_vla_ros.types import PruningSettings

LAYOUT = SequenceLayout(33, slice(1, 21), (12, 8), 32, slice(26, 32))
FINITE = [1.0]
"""What the one look at the end of every pass reads when all is well."""

BRANCHES = {'safe': [[1.0]], 'refresh': [[0.0]]}
"""What a step of a method reads before that, because its plan branches on it; call by call."""


@pytest.fixture(scope='module')
def model():
    with torch.device('meta'):
        config = LlamaConfig(
            vocab_size=60,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=5,
            num_attention_heads=4,
        )
        decoder = LlamaModel(config).eval()
    use_tapping_attention(decoder)
    return decoder


@pytest.fixture
def reads(monkeypatch):
    """Answers to give, in order; whoever reads more than there are fails."""
    answers = []
    monkeypatch.setattr(host, 'read_numbers', lambda _: answers.pop(0))
    return answers


def step(model, episode, method, **change):
    return run_decoder(
        model,
        torch.empty(1, 33, 64, device='meta'),
        layout=LAYOUT,
        episode=episode,
        settings=PruningSettings(method=method, layer=2, **change),
        stamp_s=0.0,
    )


@pytest.mark.parametrize('method', PRUNER_NAMES)
def test_a_step_reads_what_its_plan_branches_on_and_once_whether_all_was_finite(
    model, reads, method
):
    episode = make_episode()
    reads[:] = [FINITE]
    step(model, episode, method)
    assert reads == []

    reads[:] = [*BRANCHES.get(method, []), FINITE]
    output = step(model, episode, method)

    assert reads == []
    assert output.pruned == (method != 'none')


@pytest.mark.parametrize(
    'change',
    [
        {'forecast_moved': True},
        {'change_per_camera': True},
        {'refresh_score': 'shuffled'},
        {'max_staleness': 0.5},
    ],
)
def test_no_variant_of_refresh_reads_more(model, reads, change):
    episode = make_episode()
    reads[:] = [FINITE]
    step(model, episode, 'refresh', **change)

    reads[:] = [*BRANCHES['refresh'], FINITE]

    assert step(model, episode, 'refresh', **change).pruned
    assert reads == []


@pytest.mark.parametrize(
    'read',
    [
        lambda scores: scores.max().item(),
        lambda scores: bool(scores.isnan().any()),
        lambda scores: scores.cpu(),
        lambda scores: scores[scores > 0],
        lambda scores: scores.nonzero(),
    ],
)
def test_another_read_is_noticed(model, reads, monkeypatch, read):
    monkeypatch.setattr(_FastVStep, 'observe', lambda _, layer, answer: read(answer))
    reads[:] = [FINITE]

    with pytest.raises((RuntimeError, NotImplementedError), match=r'(?i)meta'):
        step(model, make_episode(), 'fastv')
