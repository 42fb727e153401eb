"""Every way in which a CogACT directory can be wrong is a sentence that names the thing."""

from __future__ import annotations

import argparse
import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from cogact_checkpoints import (
    HEADS,
    ROWS,
    UNNORM_KEY,
    WEIGHTS,
    Groups,
    cogact_settings,
    write_cogact,
)
from openvla_checkpoints import edit_json
from tokenizers import Tokenizer, models
from worker import peak_bytes

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.pt_file import read_groups
from safe_vla_ros.policies.registry import load_policy, read_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALLOWED_GROWTH_BYTES = 200 * 2**20
LLM = 'llm.model.layers.1.self_attn.q_proj.weight'
DINO = 'dino_featurizer.blocks.1'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_cogact(tmp_path / 'policy')


def refused(directory: Path, *texts: str, **settings: Any) -> None:
    """Loading fails with one sentence in which every text occurs."""
    with pytest.raises(CheckpointError) as caught:
        load_policy(str(directory), cogact_settings(**settings))
    message = str(caught.value)
    assert '\n' not in message
    for text in texts:
        assert text in message


def weights(directory: Path) -> Path:
    return directory / 'checkpoints' / WEIGHTS


def drop(group: str, key: str) -> Callable[[Groups], object]:
    return lambda groups: groups[group].pop(key)


def put(group: str, key: str, value: Any) -> Callable[[Groups], object]:
    return lambda groups: groups[group].update({key: value})


def rebuild(tmp_path: Path, change: Callable[[Groups], object]) -> Path:
    return write_cogact(tmp_path / 'changed', change)


@pytest.mark.parametrize(
    ('group', 'key'),
    [
        ('vision_backbone', f'{DINO}.attn.qkv.weight'),
        ('vision_backbone', f'{DINO}.ls2.gamma'),
        ('vision_backbone', 'dino_featurizer.reg_token'),
        ('vision_backbone', 'siglip_featurizer.pos_embed'),
        ('projector', 'projector.2.bias'),
        ('llm_backbone', LLM),
        ('llm_backbone', 'llm.model.norm.weight'),
        ('action_model', 'net.blocks.2.mlp.fc2.bias'),
        ('action_model', 'net.z_embedder.uncondition'),
        ('action_model', 'net.positional_embedding'),
    ],
)
def test_a_missing_tensor_is_named_as_the_file_would(tmp_path: Path, group: str, key: str) -> None:
    path = rebuild(tmp_path, drop(group, key))
    refused(path, WEIGHTS, f'has no tensor {group}.{key}')


@pytest.mark.parametrize(
    ('group', 'key'),
    [
        ('vision_backbone', f'{DINO}.attn.q_norm.weight'),
        ('vision_backbone', 'dino_featurizer.film.weight'),
        ('vision_backbone', 'clip_featurizer.pos_embed'),
        ('projector', 'projector.6.weight'),
        ('projector', 'projector.1.weight'),
        ('llm_backbone', 'llm.model.layers.1.self_attn.q_proj.bias'),
        ('llm_backbone', 'llm.score.weight'),
        ('llm_backbone', 'tokenizer.weight'),
        ('action_model', 'net.blocks.1.attn.q_norm.weight'),
        ('action_model', 'logvar'),
    ],
)
def test_a_surplus_tensor_is_named(tmp_path: Path, group: str, key: str) -> None:
    path = rebuild(tmp_path, put(group, key, torch.ones(3)))
    refused(path, WEIGHTS, f'{group}.{key} belongs to no part')


@pytest.mark.parametrize(
    ('group', 'key', 'shape', 'sentence'),
    [
        ('vision_backbone', f'{DINO}.mlp.fc1.bias', (7,), 'has shape [7], expected [128]'),
        ('vision_backbone', 'dino_featurizer.pos_embed', (1, 24, 32), 'has 24 positions'),
        ('vision_backbone', 'siglip_featurizer.patch_embed.proj.weight', (48, 3), 'is empty'),
        ('vision_backbone', 'dino_featurizer.cls_token', (1, 2, 32), 'has shape [1, 2, 32]'),
        ('projector', 'projector.4.weight', (64, 63), 'has shape [64, 63], expected [64, 64]'),
        ('llm_backbone', LLM, (64, 32), 'has shape [64, 32], expected [64, 64]'),
        ('llm_backbone', 'llm.model.embed_tokens.weight', (0, 64), 'is empty'),
        ('action_model', 'net.blocks.1.mlp.fc1.weight', (1, 1), 'has shape [1, 1]'),
        ('action_model', 'net.blocks.0.mlp.fc1.weight', (2**40, 0), 'mlp_width of action_model is'),
        (
            'llm_backbone',
            'llm.model.layers.0.mlp.gate_proj.weight',
            (2**40, 0),
            'intermediate_size',
        ),
        ('action_model', 'net.positional_embedding', (1, 48), 'chunk size is 0, allowed'),
        ('action_model', 'net.x_embedder.linear.weight', (48, 8), 'has 8 numbers per action'),
        ('action_model', 'net.z_embedder.linear.weight', (48, 63), 'has 63 inputs'),
        ('action_model', 'net.t_embedder.mlp.0.weight', (48, 255), '255 timestep frequencies'),
        ('action_model', 'net.x_embedder.linear.weight', (), 'has shape []'),
    ],
)
def test_a_wrong_shape_is_named(
    tmp_path: Path, group: str, key: str, shape: tuple[int, ...], sentence: str
) -> None:
    refused(rebuild(tmp_path, put(group, key, torch.zeros(shape))), WEIGHTS, sentence)


@pytest.mark.parametrize(
    ('group', 'sentence'),
    [
        ('vision_backbone', 'no group vision_backbone: the towers were frozen in training'),
        ('projector', 'no group projector'),
        ('llm_backbone', 'no group llm_backbone'),
        ('action_model', 'no group action_model, so it is no CogACT checkpoint'),
    ],
)
def test_a_missing_group_is_named(tmp_path: Path, group: str, sentence: str) -> None:
    refused(rebuild(tmp_path, lambda groups: groups.pop(group)), WEIGHTS, sentence)


def test_an_unknown_group_is_named(tmp_path: Path) -> None:
    path = rebuild(tmp_path, lambda groups: groups.update(proprio={'a': torch.ones(1)}))
    refused(path, 'has a group proprio, which belongs to no part of CogACT')


def statistics(directory: Path, **changes: Any) -> None:
    path = directory / 'dataset_statistics.json'
    content = json.loads(path.read_text())
    entry = content[UNNORM_KEY]['action']
    for name, change in changes.items():
        entry[name] = change(entry[name])
    path.write_text(json.dumps(content))


def at(index: int, value: float) -> Callable[[list[float]], list[float]]:
    return lambda old: [*old[:index], value, *old[index + 1 :]]


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'q01': at(2, float('nan'))}, 'action.q01 must be a list of finite numbers'),
        ({'q99': at(0, float('inf'))}, 'action.q99 must be a list of finite numbers'),
        (
            {'q01': at(3, 0.5), 'q99': at(3, 0.5)},
            'q01 and q99 of number 3 of the action are both 0.5',
        ),
        ({'q01': lambda old: old[:6]}, 'they must be equally many'),
        ({name: lambda old: old[:6] for name in ('q01', 'q99', 'mask')}, '6 values, expected 7'),
        ({'q99': lambda old: 'wide'}, 'must be a list of numbers'),
    ],
)
def test_statistics_that_cannot_be_are_named(
    directory: Path, changes: dict[str, Any], sentence: str
) -> None:
    statistics(directory, **changes)
    refused(directory, sentence)


def test_a_number_that_is_not_normalised_may_have_equal_quantiles(directory: Path) -> None:
    statistics(directory, q01=at(6, 0.5), q99=at(6, 0.5))
    load_policy(str(directory), cogact_settings())


def test_a_dataset_that_is_not_there_is_named(directory: Path) -> None:
    refused(directory, "unnorm_key is 'aloha'", UNNORM_KEY, unnorm_key='aloha')


def test_a_tokenizer_of_another_model_is_named(directory: Path) -> None:
    other = Tokenizer(models.WordLevel({'<s>': 1, '</s>': 2, 'robot': 29871}, unk_token='</s>'))
    other.save(str(directory / 'tokenizer.json'))
    refused(directory, 'tokenizer.json is of another model', "id 29871 is 'robot', expected '▁'")


def test_a_tokenizer_with_ids_beyond_the_embedding_is_named(directory: Path) -> None:
    content = json.loads((directory / 'tokenizer.json').read_text())
    content['model']['vocab']['beyond'] = ROWS
    (directory / 'tokenizer.json').write_text(json.dumps(content))
    refused(directory, f'has ids up to {ROWS}; the decoder embeds {ROWS}')


def test_a_tokenizer_may_lie_elsewhere_and_its_absence_is_named(directory: Path) -> None:
    elsewhere = directory.parent / 'llama'
    elsewhere.mkdir()
    (directory / 'tokenizer.json').rename(elsewhere / 'tokenizer.json')
    refused(directory, 'tokenizer.json is missing')
    for place in ('../llama', '../llama/tokenizer.json', str(elsewhere)):
        (directory / 'policy.yaml').write_text(f'cogact:\n  {HEADS}  tokenizer: {place}\n')
        load_policy(str(directory), cogact_settings())


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'vla': {'base_vlm': 'prism-clip+7b'}}, "base_vlm is 'prism-clip+7b', supported is"),
        ({'vla': {}}, 'base_vlm is None'),
        ({'future_action_window_size': 7}, 'future_action_window_size is 7; the weights'),
        ({'past_action_window_size': 2}, 'past_action_window_size is 2'),
        ({'action_dim': 14}, 'action_dim is 14'),
        ({'vla': None}, 'CogACT by vla'),
    ],
)
def test_a_configuration_that_does_not_fit_is_named(
    directory: Path, changes: dict[str, Any], sentence: str
) -> None:
    edit_json(directory / 'config.json', **changes)
    refused(directory, 'config.json', sentence)


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('cfg_scale: 0.5', 'cogact.cfg_scale is 0.5, allowed is 1 to 100'),
        ('cfg_scale: much', "cogact.cfg_scale is ['much'], allowed are 1 finite numbers"),
        ('ddim_steps: 11', 'cogact.ddim_steps is 11, allowed is one of 2, 3'),
        ('ddim_steps: [10]', 'cogact.ddim_steps is [10]'),
        ('vision_heads: 2', 'cogact.vision_heads is 2, allowed are two whole numbers'),
        ('vision_heads: [2, 0]', 'cogact.vision_heads is 0'),
        ('vision_heads: [3, 4]', 'dino_featurizer has 3 blocks, width 32 and 3 heads'),
        ('llm_heads: many', "cogact.llm_heads is 'many'"),
        ('llm_heads: 3', '3 attention heads do not divide a decoder 64 wide'),
        ('dit_heads: 5', 'attention heads of an action head 48 wide'),
        ('prompt: go', 'cogact.prompt is'),
        ('tokenizer: 3', 'cogact.tokenizer is'),
        ('checkpoint: ../a.pt', "cogact.checkpoint is '../a.pt', allowed is the name of a .pt"),
        ('checkpoint: a.pt', 'a.pt is missing'),
        ('steps: 3', 'unknown key cogact.steps; known keys: cfg_scale'),
    ],
)
def test_a_wrong_policy_file_names_the_key(directory: Path, text: str, sentence: str) -> None:
    key = text.partition(':')[0]
    known = [line for line in HEADS.split('\n') if line and not line.strip().startswith(key)]
    lines = [line.strip() for line in [*known, text]]
    (directory / 'policy.yaml').write_text('cogact:\n' + ''.join(f'  {line}\n' for line in lines))
    refused(directory, sentence)


@pytest.mark.parametrize(('key', 'what'), [('llm_heads', 'llm_heads'), ('dit_heads', 'dit_heads')])
def test_heads_that_no_published_size_has_must_be_given(
    directory: Path, key: str, what: str
) -> None:
    lines = [line.strip() for line in HEADS.split('\n') if line and key not in line]
    (directory / 'policy.yaml').write_text('cogact:\n' + ''.join(f'  {line}\n' for line in lines))
    refused(directory, f'set cogact.{what} in policy.yaml')


def test_the_right_file_must_be_known(directory: Path) -> None:
    (weights(directory).parent / 'other.pt').write_bytes(b'')
    refused(directory, 'must hold one .pt file', 'other.pt', WEIGHTS, 'cogact.checkpoint')
    (directory / 'policy.yaml').write_text(f'cogact:\n  {HEADS}  checkpoint: {WEIGHTS}\n')
    load_policy(str(directory), cogact_settings())
    for file in weights(directory).parent.iterdir():
        file.unlink()
    (directory / 'policy.yaml').write_text(f'cogact:\n  {HEADS}')
    refused(directory, 'must hold one .pt file, it holds none')


def saved(content: Any, **options: Any) -> bytes:
    target = io.BytesIO()
    torch.save(content, target, **options)
    return target.getvalue()


def repacked(content: bytes, packing: int = zipfile.ZIP_STORED, **changes: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, 'w', packing) as new:
        for entry in old.infolist():
            end = entry.filename.rsplit('/', 1)[-1].replace('.', '_')
            new.writestr(entry.filename, changes.get(end, old.read(entry)))
    return target.getvalue()


def group_of(tensor: Any) -> dict[str, Any]:
    return {'model': {'projector': {'projector.0.weight': tensor}}}


SOUND = saved(group_of(torch.zeros(64, 64)))
FILES = {
    'an object': (
        saved({'model': {'projector': argparse.Namespace(a=1)}}),
        'is refused: it is not a plain file of tensors',
    ),
    'a number for a group': (saved({'model': {'projector': 3}}), 'model.projector is int'),
    'a number for a tensor': (saved(group_of(3)), "'projector.0.weight' is int; allowed are"),
    'no groups': (saved({'model': {}}), "no groups of tensors under the key 'model'"),
    'tensors without groups': (saved({'a': torch.ones(1)}), "under the key 'model'"),
    'a view of one number as a terabyte': (
        saved(group_of(torch.zeros(1).expand(500_000, 500_000))),
        'is a view with gaps',
    ),
    'a transposed view': (saved(group_of(torch.zeros(3, 4).T)), 'is a view with gaps'),
    'one record many times': (
        saved({'model': {'g': dict.fromkeys(map(str, range(1000)), torch.zeros(10_000))}}),
        'which its tensors exceed',
    ),
    'a sparse tensor': (saved(group_of(torch.zeros(3).to_sparse())), 'projector.0.weight|tensors'),
    'a compressed gigabyte': (
        repacked(SOUND, zipfile.ZIP_DEFLATED, **{'0': bytes(2**28)}),
        'is compressed',
    ),
    'a record that is too short': (
        repacked(SOUND, **{'0': bytes(8)}),
        'within one record|truncated',
    ),
    'a table of millions': (repacked(SOUND, data_pkl=bytes(2**21)), 'a table of too many'),
    'big-endian numbers': (repacked(SOUND, byteorder=b'big'), 'not little-endian'),
    'a directory that points elsewhere': (
        SOUND.replace(b'PK\x03\x04', b'PK\x00\x00'),
        'is truncated or not a file of torch.save',
    ),
    'a broken table': (repacked(SOUND, data_pkl=b'\x80\x02}.'), "under the key 'model'|truncated"),
    'half a file': (SOUND[: len(SOUND) // 2], 'is truncated or not a file of torch.save'),
    'the format before zip files': (
        saved(group_of(torch.zeros(2)), _use_new_zipfile_serialization=False),
        'is truncated or not a file of torch.save',
    ),
}


@pytest.mark.parametrize('kind', FILES)
def test_a_file_that_is_not_what_it_should_be_is_refused_before_it_takes_memory(
    directory: Path, kind: str
) -> None:
    content, sentence = FILES[kind]
    weights(directory).write_bytes(content)
    before = peak_bytes()
    with pytest.raises(CheckpointError, match=rf'^\S+{re.escape(WEIGHTS)}.*({sentence})') as caught:
        read_spec(str(directory))
    assert '\n' not in str(caught.value)
    assert peak_bytes() - before < ALLOWED_GROWTH_BYTES


def test_what_was_saved_on_a_gpu_is_listed_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr('torch.serialization.location_tag', lambda storage: 'cuda:7')
    path = tmp_path / 'gpu.pt'
    torch.save(group_of(torch.arange(6.0).view(2, 3)), path)
    (stored,) = read_groups(path)['projector'].values()
    assert (stored.shape, stored.dtype) == ((2, 3), torch.float32)
    assert path.read_bytes()[stored.offset :][:24] == torch.arange(6.0).numpy().tobytes()


def test_nothing_large_is_read_before_everything_small_fits(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError('weights were read')

    monkeypatch.setattr('safe_vla_ros.policies.checkpoint_tensors.read_tensor', fail)
    read_spec(str(directory))
    refused(directory, 'cameras is', cameras=('front', 'wrist'))
