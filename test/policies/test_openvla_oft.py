"""OpenVLA-OFT checkpoints of several shapes, from directory to action chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from openvla_checkpoints import (
    GOLDEN,
    RandomCheckpoint,
    edit_json,
    golden_settings,
    policy_settings,
    unpack_golden,
)
from torch import nn

from safe_vla_ros.errors import CheckpointError, ObservationError, ParameterError
from safe_vla_ros.policies.openvla_config import OpenVlaOptions
from safe_vla_ros.policies.openvla_oft import (
    load_model,
    open_directory,
    read_directory_normalizers,
)
from safe_vla_ros.policies.packed_linear import can_pack
from safe_vla_ros.policies.prompt import complete_prompt
from safe_vla_ros.policies.registry import load_policy, read_spec
from safe_vla_ros.pruning import make_episode
from safe_vla_ros.types import MessageHeader, Observation, Policy, PruningSettings

ALOHA = RandomCheckpoint(
    action_dim=14,
    proprio_dim=None,
    shards=3,
    dataset='aloha_fold_shirt',
    quantiles=False,
    module_prefix=False,
)
BRIDGE = RandomCheckpoint(action_dim=7, proprio_dim=7, dataset='bridge_orig')
PROMPT = complete_prompt([1, 311, 320])
NONE = PruningSettings(method='none', layer=2)
SAFE = PruningSettings(keep_ratio=0.5, layer=2, refresh_threshold=-1.0)


@pytest.fixture(scope='module')
def golden(tmp_path_factory):
    return unpack_golden('set1', tmp_path_factory.mktemp('golden'))


@pytest.fixture(scope='module')
def aloha(tmp_path_factory):
    return ALOHA.write(tmp_path_factory.mktemp('aloha'))


@pytest.fixture(scope='module')
def bridge(tmp_path_factory):
    return BRIDGE.write(tmp_path_factory.mktemp('bridge'))


def golden_observation(step, **changes):
    with np.load(GOLDEN / 'set1' / 'inputs.npz') as inputs:
        images, proprio = inputs['images_u8'][step], inputs['proprio_raw'][step]
    values = {
        'images': dict(zip(('front', 'wrist'), images, strict=True)),
        'instruction': 'pick up the black bowl',
        'proprio': proprio,
        'image_headers': {
            'front': MessageHeader.at(step + 0.1),
            'wrist': MessageHeader.at(step + 0.2),
        },
    }
    return Observation(**{**values, **changes})


def camera_images(count, size, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def predict(model, images, pruning=NONE, *, proprio=None, episode=None, prompt=PROMPT):
    pixels = model.network.vision.normalize(torch.from_numpy(images))
    return model.predict(
        pixels,
        prompt,
        proprio,
        episode=episode or make_episode(),
        pruning=pruning,
        stamp_s=0.0,
    )


def test_the_spec_is_read_without_loading_weights(golden, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError('weights were read')

    monkeypatch.setattr('safe_vla_ros.policies.checkpoint_tensors.read_tensor', refuse)
    spec = read_spec(str(golden))
    assert spec.kind == 'openvla_oft'
    assert (spec.chunk_size, spec.num_layers, spec.num_cameras) == (8, 6, None)
    assert spec.proprio_dim == 8
    assert spec.unnorm_keys == ('libero_spatial_no_noops',)


def test_a_golden_checkpoint_gives_the_published_actions_as_a_chunk(golden, monkeypatch):
    ids = np.load(GOLDEN / 'set1' / 'inputs.npz')['input_ids'][0].tolist()
    monkeypatch.setattr(
        'safe_vla_ros.policies.prompt.PromptEncoder.encode', lambda *_: complete_prompt(ids)
    )
    policy: Policy = load_policy(str(golden), golden_settings(action_slice='shifted'))
    chunk = policy.infer(golden_observation(3), policy.new_episode(), NONE)
    expected = np.load(GOLDEN / 'set1' / 'vanilla.npz')['actions'][3]
    np.testing.assert_allclose(chunk.translation_m, expected[:, :3], atol=5e-5)
    np.testing.assert_allclose(chunk.rotation_rad, expected[:, 3:6], atol=5e-5)
    np.testing.assert_allclose(chunk.gripper, np.clip(expected[:, 6], 0, 1), atol=5e-5)
    assert set(chunk.record.stage_ms) >= {'prepare', 'vision', 'projector', 'decode', 'head'}


def test_a_policy_prunes_step_by_step_with_a_memory_that_the_caller_owns(golden):
    policy = load_policy(str(golden), golden_settings())
    pruning = replace(SAFE, keep_ratio=0.25, layer=3)
    memory = policy.new_episode()
    records = [policy.infer(golden_observation(step), memory, pruning).record for step in (0, 1)]
    assert [record.reason for record in records] == ['episode_start', None]
    assert sum(records[0].kept.values()) == 50
    assert sum(records[1].kept.values()) == 12
    assert {name: mask.shape for name, mask in records[1].kept_masks.items()} == {
        'front': (5, 5),
        'wrist': (5, 5),
    }
    assert memory.reference_stamp_s == pytest.approx(0.1)


def test_a_policy_renews_step_by_step_and_tells_of_it(golden):
    policy = load_policy(str(golden), golden_settings())
    pruning = PruningSettings(method='refresh')
    memory = policy.new_episode()
    steps = (0, 1, 1)
    chunks = [policy.infer(golden_observation(step), memory, pruning) for step in steps]

    first, renewed, again = (chunk.record for chunk in chunks)
    assert [record.reason for record in (first, renewed, again)] == ['episode_start', None, None]
    assert [sum(record.kept.values()) for record in (first, renewed, again)] == [50, 12, 12]
    assert first.ages['wrist'].max() == 0
    assert renewed.ages['wrist'].shape == (5, 5)
    assert sum(int((ages == 1).sum()) for ages in renewed.ages.values()) == 38
    assert 0 < again.residual < renewed.residual
    assert renewed.context_bytes == memory.context_bytes > 0


def test_the_two_read_outs_differ_and_the_settings_win_over_the_policy_file(golden):
    chunks = {}
    for name in (None, 'oft', 'shifted'):
        policy = load_policy(str(golden), golden_settings(action_slice=name))
        chunk = policy.infer(golden_observation(0), policy.new_episode(), NONE)
        chunks[name] = chunk.translation_m
    assert np.array_equal(chunks[None], chunks['oft'])
    assert np.abs(chunks['oft'] - chunks['shifted']).max() > 0.01


def test_bfloat16_is_close_to_float32(golden):
    chunks = []
    for dtype in ('float32', 'bfloat16'):
        policy = load_policy(str(golden), golden_settings(dtype=dtype))
        chunks.append(policy.infer(golden_observation(0), policy.new_episode(), NONE))
    assert np.abs(chunks[0].translation_m - chunks[1].translation_m).max() < 0.1


def test_the_stored_dtype_is_kept_on_the_cpu(tmp_path):
    path = replace(BRIDGE, dtype=torch.bfloat16).write(tmp_path)
    model = load_model(open_directory(path), device='cpu')
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.head.parameters()} == {torch.bfloat16}


@pytest.mark.skipif(not can_pack(torch.bfloat16), reason='torch has no packed kernels here')
def test_bfloat16_on_the_cpu_is_packed_and_answers_as_before(tmp_path, monkeypatch):
    directory = open_directory(replace(BRIDGE, dtype=torch.bfloat16).write(tmp_path))
    packed = load_model(directory, device='cpu')
    monkeypatch.setattr('safe_vla_ros.policies.openvla_oft.pack_for_cpu', lambda *_, **__: 0)
    plain = load_model(directory, device='cpu')

    linears = [module for module in packed.network.modules() if isinstance(module, nn.Linear)]
    assert linears == []
    images, proprio = camera_images(1, 28), torch.zeros(7)
    predictions = [predict(model, images, proprio=proprio) for model in (packed, plain)]
    states = [prediction.states.float() for prediction in predictions]
    assert (states[0] - states[1]).abs().max() < 0.05 * states[1].abs().max()


def test_no_parameter_or_buffer_is_left_unloaded(aloha):
    network = load_model(open_directory(aloha), device='cpu').network
    tensors = [*network.parameters(), *network.buffers()]
    assert not any(tensor.is_meta for tensor in tensors)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_last_vision_block_and_the_unused_lm_head_are_not_built(aloha):
    network = load_model(open_directory(aloha), device='cpu').network
    assert [tower.config.num_hidden_layers for tower in network.vision.towers] == [2, 2]
    assert network.lm_head is None


def test_joint_space_chunks_of_aloha_can_be_predicted_from_python(aloha):
    directory = open_directory(aloha)
    assert (directory.chunk_size, directory.action_dim) == (25, 14)
    prediction = predict(load_model(directory, device='cpu'), camera_images(1, 28))
    assert prediction.actions.shape == (25, 14)
    assert prediction.output.length == 1 + 4 + len(PROMPT) - 1 + 25 * 14 + 1


def test_joint_space_chunks_do_not_drive_an_end_effector(aloha):
    with pytest.raises(CheckpointError, match='14 action dimensions; a robot is driven by 4 or 7'):
        load_policy(str(aloha), policy_settings())


def test_shards_and_module_prefix_do_not_change_the_numbers(tmp_path):
    images = camera_images(2, 28)
    actions = []
    for name, changes in (('a', {}), ('b', {'shards': 4, 'module_prefix': False})):
        path = replace(BRIDGE, **changes).write(tmp_path / name)
        model = load_model(open_directory(path), device='cpu')
        proprio = torch.linspace(-1, 1, 7)
        actions.append(predict(model, images, proprio=proprio).actions)
    assert np.array_equal(*actions)


@pytest.mark.parametrize('cameras', [1, 2, 3])
def test_any_number_of_cameras_runs_and_prunes(bridge, cameras):
    model = load_model(open_directory(bridge), device='cpu')
    episode = make_episode()
    for step in range(2):
        prediction = predict(
            model, camera_images(cameras, 28), SAFE, proprio=torch.zeros(7), episode=episode
        )
        assert prediction.actions.shape == (5, 7)
        assert len(prediction.output.kept) == 4 * cameras // (1 + step)


def test_attention_is_bidirectional(bridge):
    model = load_model(open_directory(bridge), device='cpu')
    images = camera_images(1, 28)
    hidden = [
        predict(model, images, proprio=torch.zeros(7), prompt=[1, 311, last, 29871]).output.hidden
        for last in (320, 321)
    ]
    assert (hidden[0][0, 1:5] - hidden[1][0, 1:5]).abs().max() > 1e-4


def test_a_checkpoint_without_head_reads_discrete_tokens_in_parallel(tmp_path):
    path = replace(BRIDGE, head=False, proprio_dim=None).write(tmp_path)
    (path / 'policy.yaml').write_text('openvla: {decoding: parallel}\n')
    assert read_spec(str(path)).kind == 'openvla_oft'
    assert read_spec(str(path)).chunk_size == 5
    policy = load_policy(str(path), policy_settings())
    observation = Observation(
        {'front': camera_images(1, 40)[0]}, 'pick', None, {'front': MessageHeader.at(1.0)}
    )
    chunk = policy.infer(observation, policy.new_episode(), NONE)
    assert len(chunk) == 5
    model = load_model(open_directory(path), device='cpu')
    prediction = predict(model, camera_images(1, 28))
    tokens = model.network.predict_tokens(prediction.states)
    assert tokens.shape == (35,)
    assert np.abs(prediction.actions).max() <= 1 - 1 / 255


def test_bounds_are_used_for_aloha_and_quantiles_elsewhere(aloha, bridge, tmp_path):
    assert read_directory_normalizers(open_directory(aloha), '').actions.low[0] == -1.0
    assert read_directory_normalizers(open_directory(bridge), '').actions.low[0] == -0.5
    options = OpenVlaOptions(normalization='bounds')
    directory = open_directory(bridge, options)
    assert read_directory_normalizers(directory, 'bridge_orig').actions.low[0] == -1.0


@pytest.mark.parametrize(
    ('changes', 'size'),
    [
        ({}, 8),
        ({'dataset': 'my_robot'}, 8),
        ({'dataset': 'my_robot', 'proprio_dim': 7}, 5),
        ({'dataset': 'my_robot', 'config': {'num_actions_chunk': 3}}, 3),
    ],
)
def test_the_chunk_size_follows_the_published_robots(tmp_path, changes, size):
    path = RandomCheckpoint(**changes).write(tmp_path)
    assert read_spec(str(path)).chunk_size == size


def test_an_unknown_chunk_size_must_be_stated_in_the_policy_file(tmp_path):
    path = RandomCheckpoint(dataset='my_robot', proprio_dim=3).write(tmp_path)
    with pytest.raises(CheckpointError, match=r'set openvla\.chunk_size in policy\.yaml'):
        read_spec(str(path))
    (path / 'policy.yaml').write_text('openvla: {chunk_size: 6}\nexecute_steps: 4\n')
    spec = read_spec(str(path))
    assert (spec.chunk_size, spec.execute_steps) == (6, 4)


def test_an_explicit_rms_epsilon_of_the_config_is_used(tmp_path):
    path = replace(BRIDGE, text_config={'rms_norm_eps': 0.1}).write(tmp_path)
    directory = open_directory(path)
    assert directory.sizes.llama.rms_norm_eps == 0.1
    text = {'text_config': {**ORDINARY_TEXT, 'rms_norm_eps': None}}
    edit_json(path / 'config.json', **text)
    with pytest.raises(CheckpointError, match='text_config is not a Llama configuration'):
        open_directory(path)


ORDINARY_TEXT = {
    'hidden_size': 32,
    'intermediate_size': 80,
    'num_hidden_layers': 4,
    'num_attention_heads': 4,
    'vocab_size': 32064,
}


@pytest.mark.parametrize(
    ('changes', 'error', 'sentence'),
    [
        ({'cameras': ()}, CheckpointError, r'cameras is \[\]; .* takes at least one'),
        ({'proprio_layout': ()}, CheckpointError, 'takes 8 numbers of proprioception'),
        ({'unnorm_key': 'kuka'}, CheckpointError, "unnorm_key is 'kuka'.*libero_spatial_no_noops"),
        ({'action_slice': 'late'}, CheckpointError, "action_slice is 'late'"),
        ({'dtype': 'int8'}, ParameterError, "dtype is 'int8'"),
        ({'device': 'tpu'}, ParameterError, "device is 'tpu'"),
    ],
)
def test_settings_that_do_not_fit_are_named(golden, changes, error, sentence):
    with pytest.raises(error, match=sentence):
        load_policy(str(golden), golden_settings(**changes))


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'images': {'front': np.zeros((70, 70, 3), np.uint8)}}, 'lacks the cameras wrist'),
        ({'proprio': None}, 'has no proprioception'),
        ({'proprio': np.zeros(5)}, 'has 5 values; the checkpoint takes 8'),
        ({'instruction': 'pick ' * 3000}, 'the instruction is too long'),
    ],
)
def test_observations_that_do_not_fit_are_named(golden, changes, sentence):
    policy = load_policy(str(golden), golden_settings())
    with pytest.raises(ObservationError, match=sentence):
        policy.infer(golden_observation(0, **changes), policy.new_episode(), NONE)


def test_a_policy_without_proprioception_refuses_a_layout(tmp_path):
    path = unpack_golden('set2', tmp_path)
    with pytest.raises(CheckpointError, match='takes no proprioception'):
        load_policy(str(path), golden_settings('set2', proprio_layout=('ee_position',)))
