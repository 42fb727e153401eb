"""Autoregressive OpenVLA: causal prefill, pruning, and decoding with the ragged cache."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from openvla_checkpoints import RandomCheckpoint, edit_json, policy_settings
from transformers import LlamaForCausalLM

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.heads import decode_action_tokens
from safe_vla_ros.policies.openvla import load_model
from safe_vla_ros.policies.prompt import complete_prompt
from safe_vla_ros.policies.registry import load_policy, read_spec
from safe_vla_ros.pruning import make_episode
from safe_vla_ros.types import MessageHeader, Observation, PruningSettings

BASE = RandomCheckpoint(head=False, proprio_dim=None, shards=2, dataset='bridge_orig')
PROMPT = complete_prompt([1, 311, 320])
NONE = PruningSettings(method='none', layer=2)
SAFE = PruningSettings(keep_ratio=0.5, layer=2, refresh_threshold=-1.0, query_rows='last')


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return BASE.write(tmp_path_factory.mktemp('openvla'))


@pytest.fixture(scope='module')
def model(directory):
    return load_model(directory, device='cpu')


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (1, 28, 28, 3), dtype=np.uint8)


def predict(model, images, pruning, episode=None):
    pixels = model.network.vision.normalize(torch.from_numpy(images))
    return model.predict(
        pixels, PROMPT, None, episode=episode or make_episode(), pruning=pruning, stamp_s=0.0
    )


def transformers_own(network):
    """transformers' causal language model with the same weights and its own attention."""
    config = network.decoder.config
    config = type(config)(**{**config.to_dict(), 'attn_implementation': 'eager'})
    with torch.device('meta'):
        reference = LlamaForCausalLM(config)
    state = {f'model.{key}': value for key, value in network.decoder.state_dict().items()}
    state['lm_head.weight'] = network.lm_head.weight
    reference.load_state_dict(state, assign=True)
    reference.model.rotary_emb = network.decoder.rotary_emb
    return reference.eval().requires_grad_(False)


@torch.inference_mode()
def greedy_tokens(reference, embeddings, count):
    """Greedy tokens by a whole pass per token: no cache, nothing shared with the driver."""
    tokens = []
    for _ in range(count):
        logits = reference(inputs_embeds=embeddings).logits[0, -1]
        tokens.append(int(logits.argmax()))
        embedding = reference.model.embed_tokens(torch.tensor([[tokens[-1]]]))
        embeddings = torch.cat([embeddings, embedding], dim=1)
    return tokens


def test_the_spec_says_one_camera_one_action(directory):
    spec = read_spec(str(directory))
    assert (spec.kind, spec.num_cameras, spec.chunk_size, spec.execute_steps) == (
        'openvla',
        1,
        1,
        1,
    )
    assert spec.unnorm_keys == ('bridge_orig',)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_unpruned_tokens_are_those_of_transformers(model, seed):
    with torch.inference_mode():
        pixels = model.network.vision.normalize(torch.from_numpy(image(seed)))
        sequence = model.network.assemble(model.network.encode(pixels), PROMPT)
    tokens = greedy_tokens(transformers_own(model.network), sequence.embeddings, 7)
    prediction = predict(model, image(seed), NONE)
    assert model.network.predict_tokens(prediction.states).tolist() == tokens
    expected = decode_action_tokens(torch.tensor([tokens]), 32000, 256)
    assert np.array_equal(prediction.actions, expected)


def test_a_pruned_prefill_leaves_a_ragged_cache_and_seven_tokens(model):
    episode = make_episode()
    first = predict(model, image(), SAFE, episode)
    second = predict(model, image(1), SAFE, episode)
    assert first.output.key_step
    assert second.output.pruned
    assert second.actions.shape == (1, 7)
    lengths = {layer.keys.shape[2] for layer in second.output.cache.layers}
    full = second.output.length + 6
    assert lengths == {full, full - 2}


def test_keeping_everything_equals_no_pruning(model):
    keep_all = replace(SAFE, keep_ratio=1.0)
    episode = make_episode()
    predict(model, image(), keep_all, episode)
    kept = predict(model, image(1), keep_all, episode)
    assert np.array_equal(kept.actions, predict(model, image(1), NONE).actions)


def test_a_step_of_refresh_decodes_over_the_stored_keys_and_leaves_them_alone(model):
    renew = replace(SAFE, method='refresh')
    episode = make_episode()
    first = predict(model, image(), renew, episode)
    stored = episode.context.buffer.clone()

    again = predict(model, image(), renew, episode)

    assert (first.output.reason, again.output.pruned) == ('episode_start', True)
    assert np.array_equal(again.actions, predict(model, image(), NONE).actions)
    torch.testing.assert_close(episode.context.buffer, stored, atol=1e-5, rtol=1e-4)
    lengths = {layer.keys.shape[2] for layer in again.output.cache.layers}
    assert lengths == {again.output.length + 6}
    assert episode.context.buffer.shape[3] == again.output.length


def test_attention_is_causal(model):
    hidden = []
    pixels = model.network.vision.normalize(torch.from_numpy(image()))
    for last in (320, 321):
        prediction = model.predict(
            pixels,
            [1, 311, last, 29871],
            None,
            episode=make_episode(),
            pruning=NONE,
            stamp_s=0.0,
        )
        hidden.append(prediction.output.hidden[0, 1:5])
    assert torch.equal(*hidden)


def test_a_policy_gives_one_action_per_chunk(directory):
    policy = load_policy(str(directory), policy_settings())
    frame = np.zeros((48, 64, 3), np.uint8)
    observation = Observation({'front': frame}, 'pick', None, {'front': MessageHeader.at(1.0)})
    chunk = policy.infer(observation, policy.new_episode(), NONE)
    assert len(chunk) == 1
    assert chunk.is_finite()
    assert 'generate' in chunk.record.stage_ms


def test_openvla_unnormalises_by_quantiles_without_an_epsilon(directory):
    policy = load_policy(str(directory), policy_settings())
    assert policy._normalizers.epsilon == 0.0
    assert policy._normalizers.actions.low[0] == -0.5


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'cameras': ('front', 'wrist')}, r"cameras is \['front', 'wrist'\]; .* takes 1"),
        ({'proprio_layout': ('ee_position',)}, 'takes no proprioception'),
    ],
)
def test_settings_that_do_not_fit_are_named(directory, changes, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        load_policy(str(directory), policy_settings(**changes))


def test_norm_stats_of_the_config_serve_when_there_is_no_statistics_file(tmp_path):
    path = BASE.write(tmp_path)
    (path / 'dataset_statistics.json').unlink()
    entry = {'action': {'q01': [0.0] * 7, 'q99': [1.0] * 7}}
    edit_json(path / 'config.json', norm_stats={'fractal': entry, 'bridge_orig': entry})
    assert read_spec(str(path)).unnorm_keys == ('fractal', 'bridge_orig')
    with pytest.raises(CheckpointError, match='unnorm_key must be set'):
        load_policy(str(path), policy_settings())
    assert load_policy(str(path), policy_settings(unnorm_key='fractal'))
