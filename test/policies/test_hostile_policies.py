"""Files of a policy that declare more than they hold, or hold what they should not."""

from __future__ import annotations

import io
import json
import os
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mini_policies import write_untrained_policy
from openvla_checkpoints import policy_settings
from worker import peak_bytes

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.checkpoint import load_component
from safe_vla_ros.policies.checkpoint_tensors import read_header
from safe_vla_ros.policies.mini import encode_instruction, load, make_tokenizer
from safe_vla_ros.policies.registry import read_spec
from safe_vla_ros.policies.tokenizer_file import encode_text, read_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED_GROWTH_BYTES = 200 * 2**20


@pytest.fixture(scope='module')
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_policy(tmp_path_factory.mktemp('policy') / 'sound')


@pytest.fixture
def directory(sound: Path, tmp_path: Path) -> Path:
    copy = tmp_path / 'copy'
    copy.mkdir()
    for file in sound.iterdir():
        os.link(file, copy / file.name)
    return copy


def configure(directory: Path, **changes: Any) -> None:
    content = json.loads((directory / 'config.json').read_text()) | changes
    (directory / 'config.json').unlink()
    (directory / 'config.json').write_text(json.dumps(content))


def load_policy(directory: Path) -> None:
    load(
        directory, policy_settings(cameras=('agentview', 'wrist'), proprio_layout=('ee_position',))
    )


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'hidden_size': 10**7}, 'hidden_size is 10000000, allowed is a whole number from 2 to'),
        ({'hidden_size': 15_360}, 'has shape .* config.json asks for .*15360'),
        ({'num_hidden_layers': 10**9}, 'num_hidden_layers is 1000000000, allowed'),
        ({'num_hidden_layers': 200}, "tensor 'decoder.layers.6.* is missing"),
        ({'hidden_size': 1.5}, 'hidden_size is 1.5, allowed'),
        ({'hidden_size': True}, 'hidden_size is True, allowed'),
        ({'vocab_size': 0}, 'vocab_size is 0, allowed'),
        ({'num_attention_heads': 5}, 'an even number for each head'),
        ({'chunk_size': -1}, 'chunk_size is -1'),
        ({'cameras': ['agentview']}, 'cameras is .* sizes by name'),
        ({'cameras': {'agentview': 10**6}}, 'cameras.agentview is 1000000'),
        ({'cameras': {'keys': 64}}, "name 'keys', which no camera can have"),
        ({'cameras': {'a.b': 64}}, "name 'a.b'"),
        ({'patch_sizes': 8}, 'patch_sizes is 8; allowed is a size for each of'),
        ({'patch_sizes': {'agentview': 8}}, "size for each of \\['agentview', 'wrist'\\]"),
        ({'patch_sizes': {'agentview': 0, 'wrist': 12}}, 'patch_sizes.agentview is 0, allowed'),
        ({'patch_sizes': {'agentview': 113, 'wrist': 12}}, 'agentview is 113, .* 1 to 112'),
        ({'patch_sizes': {'agentview': 1, 'wrist': 1}}, 'has shape .* config.json asks for'),
        ({'proprio_mean': [0.0] * 4}, 'proprio_mean is .* allowed are 8 finite numbers'),
        ({'proprio_std': [float('nan')] * 8}, 'proprio_std is .* finite'),
        ({'proprio_std': [10**400] * 8}, 'finite'),
    ],
)
def test_sizes_are_refused_before_they_take_memory(
    directory: Path, changes: dict[str, Any], sentence: str
) -> None:
    configure(directory, **changes)
    before = peak_bytes()
    with pytest.raises(CheckpointError, match=sentence):
        load_policy(directory)
    assert peak_bytes() - before < ALLOWED_GROWTH_BYTES


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [
        ('cameras: corner', "cameras must be a list, got 'corner'"),
        ('cameras: 7', 'cameras must be a list'),
        ('proprio: {layout: ee_position}', 'proprio_layout must be a list'),
        ('max_linear_speed: fast', "max_linear_speed is \\['fast'\\], allowed are 1 finite"),
        ('max_linear_speed: [1]', 'max_linear_speed'),
        ('max_linear_speed: .nan', 'finite'),
        ('a: &a [1]\nb: *a', 'aliases are not allowed'),
        (f'x: {"y" * 200_000}', 'bytes; allowed are'),
    ],
)
def test_a_policy_file_of_the_wrong_types_is_named(
    directory: Path, text: str, sentence: str
) -> None:
    (directory / 'policy.yaml').unlink()
    (directory / 'policy.yaml').write_text(text)
    with pytest.raises(CheckpointError, match=rf'policy\.yaml.*(?s:.*){sentence}'):
        read_spec(str(directory))


@pytest.mark.parametrize('reference', ['x' * 10_000, '~nobody_of_that_name/policy'])
def test_a_reference_that_no_system_can_look_for_is_refused(reference: str) -> None:
    with pytest.raises(CheckpointError, match='cannot be looked for') as caught:
        read_spec(reference)
    assert len(str(caught.value)) < 2500


def saved(thing: Any, **options: Any) -> bytes:
    target = io.BytesIO()
    torch.save(thing, target, **options)
    return target.getvalue()


def repacked(content: bytes, packing: int, **changes: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, 'w', packing) as new:
        for entry in old.infolist():
            end = entry.filename.rsplit('/', 1)[-1].replace('.', '_')
            new.writestr(entry.filename, changes.get(end, old.read(entry)))
    return target.getvalue()


WEIGHT = {'fc1.weight': torch.zeros(4, 4)}
COMPONENTS = {
    'a view of one number as a terabyte': (
        saved({'fc1.weight': torch.zeros(1).expand(500_000, 500_000)}),
        'which its tensors exceed',
    ),
    'a compressed gigabyte': (
        repacked(saved(WEIGHT), zipfile.ZIP_DEFLATED, **{'0': bytes(2**28)}),
        'is compressed',
    ),
    'a table of millions of entries': (
        repacked(saved(WEIGHT), zipfile.ZIP_STORED, data_pkl=bytes(2**21)),
        'a table of too many',
    ),
    'the format before zip files': (
        saved(WEIGHT, _use_new_zipfile_serialization=False),
        'is truncated or not a file of torch.save',
    ),
    'a sparse tensor': (saved({'a': torch.zeros(3).to_sparse()}), 'dense tensors only'),
    'no tensors': (saved({'a': {'b': torch.zeros(1)}}), 'allowed are tensors only'),
    'nothing': (b'', 'is refused'),
}


@pytest.mark.parametrize('shapes_only', [False, True])
@pytest.mark.parametrize('kind', COMPONENTS)
def test_a_component_takes_no_more_than_its_file_holds(
    tmp_path: Path, kind: str, shapes_only: bool
) -> None:
    content, sentence = COMPONENTS[kind]
    path = tmp_path / 'head.pt'
    path.write_bytes(content)
    before = peak_bytes()
    with pytest.raises(CheckpointError, match=rf'^\S+head\.pt.*{sentence}'):
        load_component(path, shapes_only=shapes_only)
    assert peak_bytes() - before < ALLOWED_GROWTH_BYTES


def test_a_component_does_not_follow_its_file(tmp_path: Path) -> None:
    path = tmp_path / 'head.pt'
    path.write_bytes(saved({'fc1.weight': torch.arange(10_000.0)}))
    tensors = load_component(path)
    with path.open('r+b') as file:
        file.truncate(10)
    assert torch.equal(tensors['fc1.weight'], torch.arange(10_000.0))


def header_file(path: Path, entries: dict[str, Any], data_bytes: int = 64) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, 'little') + header + bytes(data_bytes))
    return path


def entry(shape: list[Any], begin: Any, end: Any, dtype: str = 'F32') -> dict[str, Any]:
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


@pytest.mark.parametrize(
    ('entries', 'sentence'),
    [
        ({f't{i}': entry([16], 0, 64) for i in range(50)}, 'tensors overlap'),
        ({'t': entry([2**20, 2**20], 0, 2**42)}, 'overlap|truncated'),
        ({'t': entry([10**30], 0, 4 * 10**30)}, 'broken safetensors header'),
        ({'t': entry([4.0], 0, 16)}, 'broken safetensors header'),
        ({'t': entry(['4'], 0, 16)}, 'broken safetensors header'),
        ({'t': entry([float('inf')], 0, 16)}, 'broken safetensors header'),
        ({'t': entry([True], 0, 4)}, 'broken safetensors header'),
        ({'t': entry([-4, -1], 0, 16)}, 'broken safetensors header'),
        ({'t': entry([4], -16, 0)}, 'broken safetensors header'),
        ({'t': entry([5], 0, 16)}, r'shape \[5\] but 16 bytes'),
        ({'t': 7}, 'broken safetensors header'),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(
    tmp_path: Path, entries: dict[str, Any], sentence: str
) -> None:
    path = header_file(tmp_path / 'x.safetensors', entries)
    with pytest.raises(CheckpointError, match=rf'x\.safetensors.*({sentence})'):
        read_header(path)


def test_a_tokenizer_neither_pads_nor_cuts_whatever_its_file_says(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(['open the door'])
    tokenizer.enable_padding(length=10**12)
    tokenizer.enable_truncation(1)
    tokenizer.save(str(tmp_path / 'tokenizer.json'))
    read = read_tokenizer(tmp_path / 'tokenizer.json', 100)
    assert len(encode_instruction(read, 'open the door', 5)) == 5
    assert len(encode_text(read, 'open the door')) == 3


def test_ids_that_no_embedding_has_are_refused_before_the_weights(directory: Path) -> None:
    configure(directory, vocab_size=3)
    with pytest.raises(CheckpointError, match=r'tokenizer\.json has ids up to \d+; .* embeds 3'):
        load_policy(directory)


class Panicking:
    def encode(self, text: str) -> None:
        raise type('PanicException', (BaseException,), {})(text)


def test_a_panic_of_the_tokenizer_is_an_error_like_any_other() -> None:
    with pytest.raises(ObservationError, match='cannot encode'):
        encode_text(Panicking(), 'open')
