"""Files that users give are regular, bounded before they are read, and refused with a sentence."""

from __future__ import annotations

import json
import os
import resource
import socket
from pathlib import Path

import pytest

from safe_vla_ros.bounded_files import read_bytes, read_json, read_yaml
from safe_vla_ros.errors import CheckpointError, ParameterError, SafeVlaError
from safe_vla_ros.policies.registry import read_spec
from safe_vla_ros.replay.bags import Bag
from safe_vla_ros.replay.errors import BagError
from safe_vla_ros.runtime.parameter_file import read_parameter_file, read_remappings


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to('/dev/zero')


def make_directory(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES = [make_pipe, make_device, make_directory]


@pytest.mark.timeout(10)
@pytest.mark.parametrize('make', NO_FILES)
@pytest.mark.parametrize(
    ('name', 'read', 'error'),
    [
        ('config.json', lambda path: read_spec(str(path.parent)), CheckpointError),
        ('robot.yaml', read_parameter_file, ParameterError),
        ('robot.yaml', read_remappings, ParameterError),
        ('bag.mcap', lambda path: Bag(path).__enter__(), BagError),
        ('bag.db3', lambda path: Bag(path).__enter__(), BagError),
        ('metadata.yaml', lambda path: Bag(path.parent).__enter__(), BagError),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, make, name, read, error) -> None:
    make(tmp_path / name)
    with pytest.raises(error):
        read(tmp_path / name)


@pytest.mark.parametrize('make', [*NO_FILES, make_socket])
def test_a_sentence_names_what_cannot_be_read(make, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path('thing')
    make(path)
    with pytest.raises(CheckpointError, match=r'^thing (is not a regular|cannot be read: .+)'):
        read_bytes(path, limit=10, error=CheckpointError)


def test_links_to_regular_files_are_read(tmp_path) -> None:
    (tmp_path / 'blob').write_bytes(b'{}')
    (tmp_path / 'config.json').symlink_to('blob')
    assert read_json(tmp_path / 'config.json') == {}
    with pytest.raises(SafeVlaError, match='other is missing'):
        read_bytes(tmp_path / 'other', limit=1)
    with pytest.raises(SafeVlaError, match='cannot be read: '):
        read_bytes(Path('a\0b'), limit=1)


def test_a_file_of_the_largest_size_is_read_and_no_larger_one(tmp_path) -> None:
    path = tmp_path / 'file'
    path.write_bytes(b'12345')
    assert read_bytes(path, limit=5) == b'12345'
    with pytest.raises(SafeVlaError, match='has 5 bytes; allowed are 4'):
        read_bytes(path, limit=4)
    assert read_bytes(Path('/proc/self/cmdline'), limit=10_000)


def test_a_huge_sparse_file_is_refused_unread(tmp_path) -> None:
    for read, limit in ((read_json, 64 * 2**20), (read_yaml, 128 * 2**10)):
        with (tmp_path / 'huge').open('wb') as file:
            file.truncate(2**40)
        with pytest.raises(SafeVlaError, match=f'{2**40} bytes; allowed are {limit}'):
            read(tmp_path / 'huge')


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ('{', 'Expecting property name'),
        ('[' * 100_000, 'nested too deeply'),
        ('[' + '[],' * 2_600_000 + '1]', 'more than 5000000 values'),
        ('9' * 5000, 'digit'),
    ],
)
def test_json_that_costs_too_much_is_refused(tmp_path, content, reason) -> None:
    (tmp_path / 'x.json').write_text(content)
    with pytest.raises(SafeVlaError, match=rf'x\.json cannot be read as JSON: .*{reason}'):
        read_json(tmp_path / 'x.json')


LAUGHS = 'a0: &a0 [ha, ha]\n' + ''.join(
    f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n' for i in range(1, 30)
)
MERGES = 'a0: &a0 {x: 1}\n' + ''.join(
    f'a{i}: &a{i}\n  <<: [*a{i - 1}, *a{i - 1}]\n' for i in range(1, 30)
)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (LAUGHS, 'aliases are not allowed'),
        (MERGES, 'aliases are not allowed'),
        ('a: &a [*a]', 'aliases are not allowed'),
        ('[' * 50_000, 'nested too deeply'),
        ('a: 2001-99-99', 'none'),
        ('!!timestamp x', 'none'),
        ('!!int ""', 'none'),
        ('!!python/object/apply:os.getcwd []', 'could not determine a constructor'),
        (b'\xff\xfe', 'utf-8'),
        ('\0', 'special characters'),
    ],
)
def test_yaml_that_costs_too_much_or_is_none_is_refused(tmp_path, content, reason) -> None:
    path = tmp_path / 'x.yaml'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ParameterError, match=rf'x\.yaml cannot be read as YAML: (?s:.*){reason}'):
        read_yaml(path, ParameterError)


@pytest.mark.parametrize('section', ['x', '[1]', '7', '{1: {2: 3}}'])
def test_any_content_of_ros_parameters_is_read_or_refused(tmp_path, section) -> None:
    path = tmp_path / 'robot.yaml'
    path.write_text(f'/**:\n  ros__parameters: {section}\n')
    if section.startswith('{'):
        assert read_parameter_file(path) == {'1.2': 3}
        return
    with pytest.raises(ParameterError, match=r'ros__parameters must map names to values, got'):
        read_parameter_file(path)


def test_an_error_can_be_written_and_ends() -> None:
    error = CheckpointError('name \ud800 ' + 'x' * 10**6)
    assert str(error).encode().startswith(rb'name \ud800 xxx')
    assert len(str(error)) < 2100


def test_a_json_of_many_values_stays_in_memory_bounds(tmp_path) -> None:
    path = tmp_path / 'x.json'
    path.write_text('[' + '[],' * 2_400_000 + '1]')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(json.dumps(read_json(path)[:3])) > 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000
