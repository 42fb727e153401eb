"""A prefix whose action rows belong to another module, which runs after the pass."""

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.decoder import run_layers
from safe_vla_ros.pruning import SequenceLayout, make_episode
from safe_vla_ros.types import PruningSettings

LAYERS, TOTAL, LENGTH, WIDTH = 5, 20, 26, 32
PREFIX = SequenceLayout(LENGTH, slice(0, TOTAL), (12, 8), LENGTH - 1, None)


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=10,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
    )
    decoder = LlamaModel(config).eval()
    use_tapping_attention(decoder)
    return decoder


def start(model, episode, method, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return run_layers(
        model,
        torch.randn(1, LENGTH, WIDTH, generator=generator),
        layout=PREFIX,
        episode=episode,
        settings=PruningSettings(method=method, layer=2, refresh_threshold=-1.0),
        stamp_s=float(seed),
        use_cache=True,
    )


def saliency(seed):
    return torch.rand(TOTAL, generator=torch.Generator().manual_seed(seed))


def run(model, episode, method, seed=0):
    """Run the prefix, answer as an action expert would, and finish."""
    open_pass = start(model, episode, method, seed)
    for layer in open_pass.late_taps:
        open_pass.observe(layer, saliency(layer))
    return open_pass, open_pass.finish()


def test_safe_decides_by_rows_that_are_there_and_remembers_those_that_come_later(model):
    episode = make_episode()

    first, key = run(model, episode, 'safe')
    second, pruned = run(model, episode, 'safe')

    assert (list(first.late_taps), list(second.late_taps)) == ([4], [])
    assert (key.reason, pruned.pruned) == ('episode_start', True)
    assert torch.equal(episode.reference.saliency[1], saliency(4))
    assert [layer.keys.shape[2] for layer in second.cache.layers] == [26, 26, 11, 11, 11]


def test_refresh_hears_all_saliency_later_and_shows_the_expert_every_key(model):
    episode = make_episode()

    first, _ = run(model, episode, 'refresh', 0)
    second, renewed = run(model, episode, 'refresh', 1)

    assert list(first.late_taps) == list(second.late_taps) == [1, 2, 3, 4]
    assert renewed.pruned
    expected = torch.stack([saliency(layer) for layer in (1, 2, 3, 4)]).mean(0)
    torch.testing.assert_close(episode.reference.saliency, expected)
    assert {layer.keys.shape[2] for layer in second.cache.layers} == {LENGTH}


def test_an_expert_that_fails_leaves_no_half_written_keys(model):
    episode = make_episode()
    run(model, episode, 'refresh', 0)

    start(model, episode, 'refresh', 1)

    _, after = run(model, episode, 'refresh', 2)
    assert after.reason == 'failure'


def test_saliency_over_a_ragged_cache_is_spread_over_all_tokens(model):
    open_pass = start(model, make_episode(), 'random')
    kept = open_pass.rows.kept

    spread = open_pass.rows.spread(torch.ones(len(kept)))

    assert open_pass.rows.columns == slice(0, len(kept))
    assert spread.nonzero()[:, 0].tolist() == kept.tolist()
