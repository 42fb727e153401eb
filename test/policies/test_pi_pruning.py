"""Pruning in pi0 and pi0.5: a prefix with holes, and an expert that attends to it."""

import numpy as np
import pytest
import torch
from pi_checkpoints import SETS, load_pi
from transformers import DynamicCache

from safe_vla_ros.bench.golden_pruner import ToldPruner
from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.action_expert import StoredPrefix
from safe_vla_ros.policies.attention import CACHE_ARGUMENT
from safe_vla_ros.policies.decoder import layer_widths
from safe_vla_ros.pruning import PRUNER_NAMES, Tap, layer_macs
from safe_vla_ros.types import PruningSettings

LAYER = 2
KEPT = torch.tensor([0, 3, 4, 11, 17, 30, 31])


@pytest.fixture(params=SETS)
def loaded(request, tmp_path_factory):
    return _load(request.param, tmp_path_factory)


@pytest.fixture
def pi05(tmp_path_factory):
    return _load('pi05/set1', tmp_path_factory)


ROOTS = {}


def _load(name, factory):
    if name not in ROOTS:
        ROOTS[name] = factory.mktemp('checkpoint')
    return load_pi(name, ROOTS[name])


@torch.inference_mode()
def masked_run(loaded, kept, step=0):
    """Run all rows through every layer, but hide the dropped ones from layer K on."""
    network = loaded.network
    visual = network.encode(loaded.pixels(step))
    hidden = network.assemble(visual, loaded.prompt_ids(step))
    count = hidden.shape[1]
    dropped = torch.ones(count, dtype=torch.bool)
    dropped[len(visual) :] = False
    dropped[kept] = False
    bias = torch.zeros(count).masked_fill(dropped, -torch.inf)
    rotary = network.decoder.rotary_emb(hidden, position_ids=torch.arange(count)[None])
    cache = DynamicCache()
    biases = [None if index < LAYER else bias for index in range(len(network.decoder.layers))]
    for layer, hidden_keys in zip(network.decoder.layers, biases, strict=True):
        mask = None if hidden_keys is None else hidden_keys.expand(1, 1, count, count)
        hidden = layer(
            hidden,
            attention_mask=mask,
            **{CACHE_ARGUMENT: cache},
            position_embeddings=rotary,
            is_causal=False,
        )
    prefix = StoredPrefix(
        keys=tuple(layer.keys for layer in cache.layers),
        values=tuple(layer.values for layer in cache.layers),
        biases=tuple(biases),
        length=count,
    )
    state = loaded.state_vector(step)
    return network.expert.denoise(
        torch.from_numpy(loaded.inputs['noise'][step])[None],
        None if state is None else state[None],
        prefix,
        num_steps=10,
        time_rule='exact',
        taps=lambda _: {},
    )[0].numpy()


def test_a_pruned_run_equals_a_full_run_whose_dropped_keys_are_hidden(loaded):
    prediction = loaded.predict(pruner=ToldPruner(kept=KEPT, layer=LAYER))

    np.testing.assert_allclose(prediction.actions, masked_run(loaded, KEPT), atol=1.5e-5)
    assert prediction.output.kept.tolist() == KEPT.tolist()
    assert np.abs(prediction.actions - loaded.predict().actions).max() > 0.01


def test_keeping_every_token_is_the_unpruned_run_to_the_bit(loaded):
    everything = torch.arange(len(loaded.pixels(0)) * loaded.network.grid**2)

    told = loaded.predict(pruner=ToldPruner(kept=everything, layer=LAYER))

    assert np.array_equal(told.actions, loaded.predict().actions)


def test_the_cache_is_ragged_and_the_experts_positions_are_not(pi05):
    full = len(pi05.prompt_ids(0)) + 32
    seen = {}

    def read(step, opened):
        seen[step] = tuple(layer.keys.shape[2] for layer in opened.cache.layers)
        return {}

    pi05.model.predict(
        pi05.pixels(0),
        pi05.prompt_ids(0),
        None,
        episode=pi05.episode(),
        pruning=PruningSettings(),
        stamp_s=0.0,
        pruner=ToldPruner(kept=KEPT, layer=LAYER),
        read=read,
    )

    dropped = 32 - len(KEPT)
    lengths = (full, full, full - dropped, full - dropped)
    assert seen == dict.fromkeys(range(10), lengths)


@pytest.mark.parametrize('cameras', [('front',), ('front', 'top'), ('front', 'wrist', 'top')])
def test_absent_cameras_are_never_computed(cameras, tmp_path_factory):
    loaded = _load('pi05/set2', tmp_path_factory)

    output = loaded.predict(cameras=cameras).output

    assert output.layout.tokens_per_camera == (25,) * len(cameras)
    assert output.length == 25 * len(cameras) + len(loaded.prompt_ids(0))
    pruned = loaded.predict(cameras=cameras, method='random', keep_ratio=0.2).output
    assert len(pruned.kept) == 5 * len(cameras)
    assert pruned.layer_keys[-1] == output.length - 20 * len(cameras)


def test_the_forecast_is_what_the_action_rows_attended_to_at_the_key_step(pi05):
    told = ToldPruner(taps={3: Tap('action'), 1: Tap('last')})
    pi05.predict(pruner=told)
    episode = pi05.episode()

    key = pi05.predict(episode=episode, method='safe', keep_ratio=0.25, refresh_threshold=-1.0)

    assert key.output.reason == 'episode_start'
    assert not key.output.pruned
    reference = episode.pruning.reference
    assert reference.layers == (1, 3)
    assert torch.equal(reference.saliency[0], told.answers[1])
    assert torch.equal(reference.saliency[1], told.answers[3])


def test_the_same_observation_again_is_pruned_and_changed_attention_is_a_key_step(pi05):
    episode = pi05.episode()
    pi05.predict(episode=episode, method='safe', keep_ratio=0.25, refresh_threshold=0.99)

    again = pi05.predict(episode=episode, method='safe', keep_ratio=0.25, refresh_threshold=0.99)

    assert again.output.similarity == pytest.approx(1.0, abs=1e-5)
    assert len(again.output.kept) == 8
    shifted = pi05.predict(
        2, episode=episode, method='safe', keep_ratio=0.25, refresh_threshold=0.9999
    )
    assert shifted.output.reason == 'attention_shift'


@pytest.mark.parametrize('method', PRUNER_NAMES)
def test_every_method_runs(loaded, method):
    episode = loaded.episode()
    settings = {'method': method, 'keep_ratio': 0.25, 'refresh_threshold': -1.0}

    predictions = [
        loaded.predict(step % 2, episode=episode, max_staleness=0.0, **settings)
        for step in range(5)
    ]

    last = predictions[-1].output
    assert last.pruned == (method != 'none')
    assert last.reason is None
    assert np.isfinite(predictions[-1].actions).all()


def test_renewing_nothing_new_gives_the_unpruned_actions(loaded):
    episode = loaded.episode()
    settings = {'method': 'refresh', 'keep_ratio': 0.25, 'max_staleness': 0.0}
    loaded.predict(episode=episode, **settings)

    renewed = loaded.predict(episode=episode, **settings)

    assert renewed.output.pruned
    np.testing.assert_allclose(renewed.actions, loaded.predict().actions, atol=1.5e-5)


def test_a_state_that_changes_the_length_of_the_prompt_is_no_reason_to_renew_everything(pi05):
    episode = pi05.episode()
    settings = {'method': 'refresh', 'keep_ratio': 0.5, 'max_staleness': 0.0}
    pi05.predict(0, episode=episode, **settings)

    other = pi05.predict(1, episode=episode, **settings)

    assert len(pi05.prompt_ids(0)) != len(pi05.prompt_ids(1))
    assert other.output.reason is None
    assert other.output.pruned


def test_operations_count_one_key_head_and_what_each_layer_attends_to(pi05):
    told = pi05.predict(pruner=ToldPruner(kept=KEPT, layer=LAYER))
    full = pi05.predict()
    rows, fewer = full.output.length, full.output.length - 32 + len(KEPT)

    def layer(n):
        return 2 * n * 64 * (64 + 32) + 2 * n * n * 64 + 3 * n * 64 * 128

    assert full.output.macs == full.output.macs_full == 4 * layer(rows)
    assert told.output.macs == 2 * layer(rows) + 2 * layer(fewer)
    assert told.output.macs_full == full.output.macs
    # Per denoising step 10 rows attend to 25 keys less in two layers, at 2 x 64 each.
    assert full.expert_macs - told.expert_macs == 10 * 10 * 25 * 2 * 2 * 64
    widths = layer_widths(pi05.network.expert.config)
    plain = sum(layer_macs(10, context=rows + 10, **widths) for _ in range(4))
    norms = 9 * 3 * 32 * 32
    ends = 2 * 10 * 32 * 32 + 2 * 32 * 32
    assert full.expert_macs == 10 * (plain + norms + ends)


def test_actions_that_are_not_finite_leave_memory_and_noise_as_they_were(pi05, monkeypatch):
    episode = pi05.model.new_episode()
    with episode.noise(1) as first:
        pass
    episode.clear('episode_start')
    velocity = pi05.network.expert.velocity
    monkeypatch.setattr(
        pi05.network.expert, 'velocity', lambda *given: velocity(*given) * torch.nan
    )

    with pytest.raises(NonFiniteError, match='NaN or infinity'):
        pi05.predict(episode=episode, method='safe')
    with pytest.raises(NonFiniteError, match='actions of the expert: NaN or infinity'):
        pi05.predict(episode=episode)

    assert episode.reference_stamp_s is None
    with episode.noise(1) as again:
        assert torch.equal(first, again)


def test_an_episode_repeats_its_actions_and_another_seed_gives_others(pi05):
    def run(episode):
        return [pi05.predict(episode=episode).actions for _ in range(2)]

    first, second = run(pi05.model.new_episode()), run(pi05.model.new_episode())

    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])
