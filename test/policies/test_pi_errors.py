"""Directories of pi0 and pi0.5 that cannot be used: one sentence each, before weights are read."""

import json
import shutil

import pytest
import torch
from openvla_checkpoints import edit_json
from pi_checkpoints import edit_tensors, pi_settings, unpack_pi, write_options

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies import load_policy, read_spec
from safe_vla_ros.policies.pi_directory import open_directory

WEIGHTS = 'model.safetensors'
START = 'model.paligemma_with_expert.'
LAYER = f'{START}paligemma.model.language_model.layers.1'
STATISTICS = 'assets/tiny/norm_stats.json'


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    return unpack_pi('pi05/set1', tmp_path_factory.mktemp('lerobot'))


@pytest.fixture(scope='module')
def sound_openpi(tmp_path_factory):
    return unpack_pi('pi05/set1', tmp_path_factory.mktemp('openpi'), 'openpi_checkpoint')


@pytest.fixture
def directory(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / 'pi')


@pytest.fixture
def openpi(sound_openpi, tmp_path):
    return shutil.copytree(sound_openpi, tmp_path / 'openpi')


def refused(directory):
    with pytest.raises(CheckpointError) as caught:
        load_policy(str(directory), pi_settings())
    return str(caught.value)


def edit_step(path, name, change):
    content = json.loads(path.read_text())
    for step in content['steps']:
        if step['registry_name'] == name:
            change(step)
    path.write_text(json.dumps(content))


def add_step(path, place, name):
    content = json.loads(path.read_text())
    content['steps'].insert(place, {'registry_name': name, 'config': {}})
    path.write_text(json.dumps(content))


def state_file(directory, place='preprocessor'):
    return next(directory.glob(f'policy_{place}_step_*.safetensors'))


def test_a_sound_directory_loads(sound, sound_openpi):
    assert load_policy(str(sound), pi_settings()).spec.kind == 'pi05'
    assert load_policy(str(sound_openpi), pi_settings()).spec.kind == 'pi05'


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (lambda t: t.pop(f'{LAYER}.mlp.up_proj.weight'), 'has no tensor'),
        (lambda t: t.update({'model.film.weight': torch.zeros(2)}), 'belongs to no part'),
        (lambda t: t.update({f'{LAYER}.self_attn.q_proj.bias': torch.zeros(64)}), 'no part'),
        (
            lambda t: t.update({f'{LAYER}.mlp.up_proj.weight': torch.zeros(127, 64)}),
            r'up_proj.weight has shape [127, 64], expected [128, 64]',
        ),
        (
            lambda t: t.update({'model.action_in_proj.weight': torch.zeros(32, 31)}),
            'action_in_proj.weight has shape [32, 31], expected [32, 32]',
        ),
        (
            lambda t: t.pop(f'{START}gemma_expert.model.layers.3.input_layernorm.dense.weight'),
            'has no tensor',
        ),
    ],
)
def test_weights_that_do_not_fit(directory, change, sentence):
    edit_tensors(directory / WEIGHTS, change)

    assert sentence in refused(directory)


def test_layers_that_differ_between_the_two_gemmas(directory):
    def cut(tensors):
        for key in [k for k in tensors if f'{START}gemma_expert.model.layers.3.' in k]:
            del tensors[key]

    edit_tensors(directory / WEIGHTS, cut)

    assert 'they must be equal' in refused(directory)


@pytest.mark.parametrize('place', ['preprocessor', 'postprocessor'])
def test_statistics_that_are_not_finite(directory, place):
    feature = 'observation.state' if place == 'preprocessor' else 'action'

    def spoil(tensors):
        tensors[f'{feature}.q01'][2] = torch.nan

    edit_tensors(state_file(directory, place), spoil)

    assert f'{feature}: number 2 of q01 is nan; allowed are finite' in refused(directory)


def test_quantiles_that_are_equal(directory):
    def spoil(tensors):
        tensors['action.q99'][5] = tensors['action.q01'][5]

    edit_tensors(state_file(directory, 'postprocessor'), spoil)

    assert 'q01 and q99 are equal for number 5' in refused(directory)


def test_statistics_that_are_missing_or_of_another_size(directory):
    edit_tensors(state_file(directory), lambda t: t.pop('observation.state.q99'))
    assert "no statistics 'q99'" in refused(directory)
    edit_tensors(
        state_file(directory), lambda t: t.update({'observation.state.q99': torch.zeros(7)})
    )
    assert 'q99 has shape [7], expected [8]' in refused(directory)


@pytest.mark.parametrize(
    ('edit', 'sentence'),
    [
        (lambda p: add_step(p, 1, 'delta_actions_processor'), "has the step 'delta_actions_proc"),
        (
            lambda p: edit_step(
                p, 'relative_actions_processor', lambda s: s['config'].update(enabled=True)
            ),
            'relative_actions_processor is enabled, which is not supported',
        ),
        (
            lambda p: edit_step(
                p, 'tokenizer_processor', lambda s: s['config'].update(padding_side='left')
            ),
            "padding_side is 'left', allowed is right",
        ),
        (
            lambda p: edit_step(
                p, 'tokenizer_processor', lambda s: s['config'].update(max_length=0)
            ),
            'max_length is 0',
        ),
        (
            lambda p: edit_step(
                p,
                'normalizer_processor',
                lambda s: s['config']['norm_map'].update(STATE='LOG'),
            ),
            "the normalisation is 'LOG', known are IDENTITY, MEAN_STD, QUANTILES",
        ),
        (
            lambda p: edit_step(
                p, 'normalizer_processor', lambda s: s.update(state_file='../other.safetensors')
            ),
            'allowed is a file name in the directory',
        ),
        (
            lambda p: edit_step(
                p, 'normalizer_processor', lambda s: s.update(state_file='gone.safetensors')
            ),
            'gone.safetensors is missing',
        ),
    ],
)
def test_processors_that_are_not_known(directory, edit, sentence):
    edit(directory / 'policy_preprocessor.json')

    assert sentence in refused(directory)


def test_processors_in_another_order_or_incomplete(directory):
    path = directory / 'policy_preprocessor.json'
    whole = json.loads(path.read_text())
    edit_json(path, steps=whole['steps'][::-1])
    assert 'in this order; it is normalizer_processor, ' in refused(directory)
    edit_json(
        path, steps=[s for s in whole['steps'] if s['registry_name'] != 'normalizer_processor']
    )
    assert 'lacks the step normalizer_processor' in refused(directory)
    path.unlink()
    assert 'checkpoints of LeRobot before 0.4 have none' in refused(directory)


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'image_resolution': [224, 224]}, 'image_resolution is 224; the weights are for 56'),
        ({'image_resolution': [56, 70]}, 'allowed is a square'),
        ({'chunk_size': 0}, 'chunk_size is 0'),
        ({'n_action_steps': 11}, 'n_action_steps is 11'),
        ({'num_inference_steps': 'ten'}, "num_inference_steps is 'ten'"),
        ({'max_action_dim': 6}, 'max_action_dim is 6'),
        ({'use_peft': True}, 'merge the adapter'),
        ({'min_period': 0.0}, 'allowed is 0 < min < max'),
        ({'output_features': {}}, 'has no action with a shape'),
        ({'output_features': {'action': 7}}, 'has no action with a shape'),
        ({'action_feature_names': 7.0}, 'action_feature_names is 7.0, allowed is a list'),
        ({'input_features': {'observation.state': {'shape': [8]}}}, 'has no observation.images.'),
    ],
)
def test_configurations_that_cannot_be(directory, change, sentence):
    edit_json(directory / 'config.json', **change)

    assert sentence in refused(directory)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({}, 'attention heads of a SigLIP of width 48 are not known; set pi.vision_heads'),
        ({'vision_heads': 5}, 'a width divisible by the heads'),
        ({'vision_heads': 3, 'heads': 3}, 'unknown key pi.heads'),
        ({'vision_heads': 3, 'image_padding': 0}, 'pi.image_padding is 0, allowed is -1 or -3'),
        ({'vision_heads': 3, 'pad_state': 1}, 'pi.pad_state is 1, allowed is true or false'),
        (
            {'vision_heads': 3, 'saliency_steps': [10]},
            'saliency_steps holds 10, allowed are 0 to 9',
        ),
        ({'vision_heads': 3, 'camera_slots': ['a', 'a']}, 'allowed are different names'),
        ({'vision_heads': 3, 'tokenizer': 'elsewhere'}, "PaliGemma's tokenizer is needed"),
        ({'vision_heads': 3, 'tokenizer': 'hf:google/paligemma'}, 'must be hf:org/name@<40-hex'),
    ],
)
def test_settings_that_cannot_be(directory, options, sentence):
    write_options(directory, **options)

    assert sentence in refused(directory)


def test_a_tokenizer_of_another_model(directory):
    path = directory / 'tokenizer.json'
    whole = json.loads(path.read_text())
    text = path.read_text().replace('<bos>', '<s>')
    path.write_text(text)
    assert "is of another model: id 2 is '<s>', expected '<bos>'" in refused(directory)
    whole['model']['vocab']['extra'] = 576
    path.write_text(json.dumps(whole))
    assert 'has ids up to 576; the decoder embeds 576' in refused(directory)


def test_openpi_statistics_that_cannot_be_used(openpi):
    path = openpi / STATISTICS
    whole = json.loads(path.read_text())

    def change(**state):
        content = json.loads(json.dumps(whole))
        content['norm_stats']['state'].update(state)
        path.write_text(json.dumps(content))

    change(q01=[float('nan')] * 8)
    assert 'number 0 of q01 is nan' in refused(openpi)
    change(q01=whole['norm_stats']['state']['q99'])
    assert 'q01 and q99 are equal for number 0' in refused(openpi)
    change(q01='all')
    assert 'q01 must be a list of numbers' in refused(openpi)
    change(mean=[0.0] * 33)
    assert 'no norm_stats.state with 1 to 32 numbers of mean' in refused(openpi)
    edit_json(path, norm_stats=None)
    assert 'has no norm_stats' in refused(openpi)


def test_openpi_statistics_of_several_data_sets_need_a_choice(openpi):
    shutil.copytree(openpi / 'assets' / 'tiny', openpi / 'assets' / 'other')

    assert read_spec(str(openpi)).unnorm_keys == ('other', 'tiny')
    assert 'unnorm_key must be set' in refused(openpi)
    assert open_directory(openpi, unnorm_key='tiny').facts.kind == 'pi05'
    shutil.rmtree(openpi / 'assets')
    assert 'has no assets/<data set>/norm_stats.json' in refused(openpi)


def test_a_kind_that_is_not_known(directory):
    edit_json(directory / 'config.json', type='smolvla')

    assert 'pi0 and pi0.5 are known by type' in refused(directory)
