"""Files that are whole or absent."""

import stat
from pathlib import Path

import pytest

from safe_vla_ros.whole_files import write_json, written_whole


def test_a_file_is_there_when_it_is_whole(tmp_path):
    path = tmp_path / 'new' / 'result.json'
    write_json(path, {'a': 1})
    assert path.read_text(encoding='utf-8') == '{\n "a": 1\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ['result.json']


def write_half(path):
    with written_whole(path) as partial:
        partial.write_text('half', encoding='utf-8')
        raise KeyError


def test_after_an_error_the_old_file_stays_and_nothing_else(tmp_path):
    path = tmp_path / 'result.json'
    path.write_text('old', encoding='utf-8')
    with pytest.raises(KeyError):
        write_half(path)
    assert path.read_text(encoding='utf-8') == 'old'
    assert [file.name for file in tmp_path.iterdir()] == ['result.json']


def test_a_directory_or_a_device_is_never_replaced(tmp_path):
    for path in (tmp_path, Path('/dev/null')):
        with pytest.raises(OSError, match='not a regular file'):
            write_json(path, {})
    assert stat.S_ISCHR(Path('/dev/null').stat().st_mode)
