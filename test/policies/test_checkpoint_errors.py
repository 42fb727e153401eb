"""Every way in which a checkpoint directory can be wrong gets a sentence with file and key."""

import json
import os
import pickle
import re
import shutil

import pytest
import torch
from openvla_checkpoints import RandomCheckpoint, edit_json, policy_settings
from safetensors.torch import load_file, save_file

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.registry import load_policy, read_spec

WIDTH = 8
HEAD = 'action_head--1000_checkpoint.pt'
PROPRIO = 'proprio_projector--1000_checkpoint.pt'
INDEX = 'model.safetensors.index.json'
SHARD = 'model-00001-of-00002.safetensors'
EMBEDDING = 'language_model.model.embed_tokens.weight'


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp('sound')
    return RandomCheckpoint(shards=2, width=WIDTH, dtype=torch.bfloat16).write(path)


@pytest.fixture
def directory(sound, tmp_path):
    """A copy that shares the files' contents until a test replaces one."""
    return shutil.copytree(sound, tmp_path / 'copy', copy_function=os.link)


def load(directory):
    layout = ('ee_position', 'ee_axis_angle', 'gripper_joints')
    return load_policy(str(directory), policy_settings(proprio_layout=layout))


def replace_file(path, content):
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def edit_tensors(path, change):
    tensors = load_file(path) if path.suffix == '.safetensors' else torch.load(path)
    change(tensors)
    path.unlink()
    (save_file if path.suffix == '.safetensors' else torch.save)(tensors, path)


def add_tensor(directory, key, tensor):
    edit_tensors(directory / SHARD, lambda tensors: tensors.update({key: tensor}))
    index = json.loads((directory / INDEX).read_text())['weight_map']
    edit_json(directory / INDEX, weight_map=index | {key: SHARD})


def shard_of(directory, key):
    return directory / json.loads((directory / INDEX).read_text())['weight_map'][key]


def expect(directory, *texts):
    """The policy is refused with a sentence that holds every text."""
    with pytest.raises(CheckpointError) as caught:
        load(directory)
    for text in texts:
        assert text in str(caught.value)


def test_the_sound_directory_loads(directory):
    assert load(directory).spec.chunk_size == 8


@pytest.mark.parametrize(
    ('name', 'texts'),
    [
        ('config.json', ('config.json is missing',)),
        ('preprocessor_config.json', ('preprocessor_config.json is missing',)),
        ('tokenizer.json', ('tokenizer.json is missing', 'to encode the instruction')),
        (SHARD, (f'{SHARD} is missing', f'{INDEX} names it')),
        (INDEX, ('there are shards, but the index that lists them is missing',)),
    ],
)
def test_a_missing_file_is_named(directory, name, texts):
    (directory / name).unlink()
    expect(directory, *texts)


def test_missing_statistics_say_where_they_could_be(directory):
    (directory / 'dataset_statistics.json').unlink()
    edit_json(directory / 'config.json', norm_stats=None)
    expect(directory, 'dataset_statistics.json or norm_stats in config.json is needed')


@pytest.mark.parametrize('name', ['config.json', 'dataset_statistics.json', INDEX])
@pytest.mark.parametrize(
    ('content', 'text'),
    [(b'{"a": ', 'cannot be read as JSON'), (b'[1]', 'must hold a JSON object')],
)
def test_a_file_that_is_not_a_json_object_is_named(directory, name, content, text):
    replace_file(directory / name, content)
    expect(directory, name, text)


@pytest.mark.parametrize('size', [0, 5, 8, 100, -1])
def test_a_truncated_shard_is_named(directory, size):
    content = (directory / SHARD).read_bytes()
    replace_file(directory / SHARD, content[:size])
    expect(directory, SHARD)


def test_truncation_inside_the_weights_says_how_much_is_missing(directory):
    content = (directory / SHARD).read_bytes()
    replace_file(directory / SHARD, content[:-1])
    expect(directory, f'is truncated: it has {len(content) - 1} bytes, its tensors need')


def test_a_shard_without_a_listed_tensor_is_named(directory):
    path = shard_of(directory, EMBEDDING)
    edit_tensors(path, lambda tensors: tensors.pop(EMBEDDING))
    expect(directory, f'{path.name} has no tensor {EMBEDDING}', 'index.json says so')


@pytest.mark.parametrize(
    'key',
    [
        'language_model.model.layers.3.mlp.up_proj.weight',
        'projector.fc2.bias',
        'vision_backbone.featurizer.blocks.1.attn.qkv.weight',
        'vision_backbone.featurizer.cls_token',
        'vision_backbone.fused_featurizer.pos_embed',
    ],
)
def test_a_missing_key_is_named(directory, key):
    index = json.loads((directory / INDEX).read_text())['weight_map']
    del index[key]
    edit_json(directory / INDEX, weight_map=index)
    expect(directory, f'{INDEX} has no tensor {key}')


@pytest.mark.parametrize(
    'key',
    [
        EMBEDDING,
        'language_model.model.layers.2.self_attn.k_proj.weight',
        'projector.fc1.weight',
        'vision_backbone.featurizer.blocks.0.mlp.fc2.weight',
        'vision_backbone.featurizer.cls_token',
        'vision_backbone.fused_featurizer.blocks.1.norm1.bias',
    ],
)
def test_a_wrong_shape_names_file_key_and_both_shapes(directory, key):
    path = shard_of(directory, key)

    def grow(tensors):
        shape = list(tensors[key].shape)
        tensors[key] = torch.zeros(*shape[:-1], shape[-1] + 1)

    edit_tensors(path, grow)
    expect(directory, path.name, key, 'shape', 'expected')


@pytest.mark.parametrize(
    'key',
    [
        'vision_backbone.featurizer.blocks.0.scale.weight',
        'vision_backbone.featurizer.blocks.1.ls1.gamma',
        'language_model.model.layers.0.self_attn.q_proj.bias',
        'language_model.model.layers.4.mlp.up_proj.weight',
        'projector.fc4.weight',
    ],
)
def test_weights_that_would_be_ignored_are_refused(directory, key):
    add_tensor(directory, key, torch.zeros(3))
    expect(directory, key, 'belongs to no part')


def test_unused_weights_that_every_checkpoint_has_are_no_error(directory):
    for key in ('fused_featurizer.attn_pool.latent', 'featurizer.blocks.2.extra'):
        add_tensor(directory, f'vision_backbone.{key}', torch.zeros(3))
    add_tensor(directory, 'language_model.model.layers.0.rotary_emb.inv_freq', torch.zeros(3))
    assert load(directory)


def test_a_tower_with_registers_must_have_their_token(directory):
    key = 'vision_backbone.featurizer.reg_token'
    index = json.loads((directory / INDEX).read_text())['weight_map']
    del index[key]
    edit_json(directory / INDEX, weight_map=index)
    expect(directory, f'has no tensor {key}')


def test_fused_attention_weights_must_split_in_three(directory):
    key = 'vision_backbone.featurizer.blocks.0.attn.qkv.bias'
    path = shard_of(directory, key)
    edit_tensors(path, lambda tensors: tensors.update({key: torch.zeros(95)}))
    expect(directory, key, 'not a multiple of 3')


def test_a_pickle_under_the_name_of_weights_is_refused(directory):
    path = directory / SHARD
    path.unlink()
    torch.save({'a': torch.zeros(3)}, path)
    expect(directory, SHARD, 'is a pickle')


def test_pickled_weights_are_refused_with_a_hint(directory):
    for file in directory.glob('model*'):
        file.unlink()
    (directory / 'pytorch_model.bin').write_bytes(b'')
    expect(directory, 'pytorch_model.bin', 'convert to safetensors')


def test_a_git_lfs_pointer_gets_a_hint(directory):
    replace_file(directory / SHARD, b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
    expect(directory, SHARD, 'git lfs pull')


def test_an_index_cannot_point_out_of_the_directory(directory):
    edit_json(directory / INDEX, weight_map={EMBEDDING: '../outside.safetensors'})
    expect(directory, EMBEDDING, '../outside.safetensors')


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize('name', [HEAD, PROPRIO])
def test_code_in_a_pickled_head_is_refused_and_not_run(directory, tmp_path, name):
    target = tmp_path / 'executed'
    (directory / name).unlink()
    torch.save({'model.fc1.weight': Malicious(target)}, directory / name)
    expect(directory, name, 'is refused')
    replace_file(directory / name, pickle.dumps(Malicious(target), protocol=2))
    expect(directory, name, 'is refused')
    assert not target.exists()


@pytest.mark.parametrize('name', [HEAD, PROPRIO])
@pytest.mark.parametrize('share', [0.0, 0.5, 0.99])
def test_a_truncated_head_is_named(directory, name, share):
    content = (directory / name).read_bytes()
    replace_file(directory / name, content[: int(share * len(content))])
    expect(directory, name)


@pytest.mark.parametrize(
    ('name', 'key', 'text'),
    [
        (HEAD, 'module.model.fc1.bias', 'has no tensor model.fc1.bias'),
        (HEAD, 'module.model.fc2.weight', 'model.fc2.weight is missing'),
        (PROPRIO, 'module.fc2.bias', 'has no tensor fc2.bias'),
    ],
)
def test_a_head_without_a_key_is_named(directory, name, key, text):
    edit_tensors(directory / name, lambda tensors: tensors.pop(key))
    expect(directory, name, text)


def test_an_unknown_key_of_a_head_is_named(directory):
    edit_tensors(directory / HEAD, lambda tensors: tensors.update(extra=torch.zeros(1)))
    expect(directory, HEAD, 'has an unknown tensor extra')


def test_a_wrong_shape_in_a_head_is_named(directory):
    key = 'module.model.layer_norm2.bias'
    edit_tensors(directory / HEAD, lambda tensors: tensors.update({key: torch.zeros(9)}))
    expect(directory, HEAD, 'model.layer_norm2.bias has shape [9], expected [40]')


def test_a_head_that_is_not_a_mapping_of_tensors_is_named(directory):
    (directory / HEAD).unlink()
    torch.save({'step': 3}, directory / HEAD)
    expect(directory, HEAD, "'step' is int; allowed are tensors only")


def test_two_heads_are_ambiguous(directory):
    shutil.copy(directory / HEAD, directory / 'action_head--2000_checkpoint.pt')
    expect(directory, 'several action_head files', HEAD, 'action_head--2000_checkpoint.pt')


@pytest.mark.parametrize(
    ('name', 'text'),
    [('vision_backbone', 'FiLM'), ('noisy_action_projector', 'a diffusion action head')],
)
def test_parts_that_would_be_ignored_are_refused(directory, name, text):
    (directory / f'{name}--1000_checkpoint.pt').write_bytes(b'')
    expect(directory, f'{name}--1000_checkpoint.pt', text, 'not supported')


@pytest.mark.parametrize(
    ('changes', 'texts'),
    [
        ({'timm_model_ids': None}, ("has no key 'timm_model_ids'",)),
        ({'timm_model_ids': ['resnet', 'siglip']}, ('resnet', 'vision_heads')),
        ({'timm_model_ids': ['vit_base_clip', 'vit_base_siglip']}, ('supported are dinov2',)),
        ({'timm_model_ids': ['vit_large_dinov2_h2']}, ('2 vision towers need',)),
        ({'text_config': None}, ("has no key 'text_config'",)),
        ({'text_config': {'model_type': 'mistral'}}, ("'mistral', supported is llama",)),
        ({'text_config': {'hidden_size': 'wide'}}, ("hidden_size is 'wide', allowed is",)),
        ({'text_config': {'hidden_act': 7}}, ('not a Llama configuration',)),
        ({'image_resize_strategy': 'letterbox'}, ("'letterbox', supported is resize-naive",)),
        ({'model_type': 'paligemma'}, ("model_type is 'paligemma'", 'mini_vla, openvla')),
    ],
)
def test_a_wrong_configuration_names_the_key(directory, changes, texts):
    edit_json(directory / 'config.json', **changes)
    expect(directory, 'config.json' if 'towers' not in texts[0] else 'copy', *texts)


@pytest.mark.parametrize(
    ('changes', 'texts'),
    [
        ({'means': None}, ('means is None',)),
        ({'stds': [[1.0, 1.0, 1.0]]}, ('stds is', 'list of 2')),
        ({'means': [[0.5], [0.5]]}, ('means is [0.5]', '3 finite numbers')),
        ({'input_sizes': [[3, 42, 42], [3, 42, 42]]}, ('pos_embed has 4 positions', '42 pixels')),
        ({'input_sizes': [[3, 28, 28], [3, 14, 14]]}, ('pos_embed has 4 positions',)),
    ],
)
def test_a_wrong_preprocessor_configuration_names_the_key(directory, changes, texts):
    edit_json(directory / 'preprocessor_config.json', **changes)
    expect(directory, *texts)


def test_statistics_of_another_robot_are_named(directory):
    path = directory / 'dataset_statistics.json'
    content = json.loads(path.read_text())
    entry = next(iter(content.values()))
    for name in entry['action']:
        entry['action'][name] = entry['action'][name][:6]
    edit_json(path, **content)
    expect(directory, f'statistics of action have 6 values, {HEAD} 7')


def test_statistics_without_a_part_are_named(directory):
    path = directory / 'dataset_statistics.json'
    edit_json(path, libero_spatial_no_noops={'action': {}})
    expect(directory, 'statistics of libero_spatial_no_noops: action has no key')


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('openvla: {chunk: 8}', 'unknown key openvla.chunk; known keys: chunk_size'),
        ('openvla: {chunk_size: 0}', 'openvla.chunk_size is 0, allowed is a positive integer'),
        ('openvla: {normalization: mean}', "openvla.normalization is 'mean'"),
        ('openvla: {action_slice: late}', "openvla.action_slice is 'late'"),
        ('openvla: {decoding: fast}', "openvla.decoding is 'fast'"),
        ('openvla: {prompt: go}', 'a text with {instruction} in it'),
        ('openvla: {vision_heads: [0, 1]}', 'openvla.vision_heads is [0, 1]'),
        ('openvla: 3', 'openvla must be a mapping'),
        ('sizes: {}', "unknown key 'sizes'"),
        ('a: [', 'cannot be read as YAML'),
    ],
)
def test_a_wrong_policy_file_names_the_key(directory, text, expected):
    (directory / 'policy.yaml').write_text(text)
    with pytest.raises(CheckpointError, match=re.escape(expected)):
        read_spec(str(directory))
