"""The README says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from safe_vla_ros.runtime.parameters import markdown_table

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def readme():
    return (ROOT / 'README.md').read_text(encoding='utf-8')


def test_the_table_of_parameters_is_the_one_that_the_node_declares(readme):
    shown = readme.split('<!-- parameters -->')[1].split('<!-- /parameters -->')[0]
    assert shown.strip() == markdown_table().strip()


ROBOTS = ('openvla_oft_libero', 'openvla_bridge')


def lines_of(content, prefix=''):
    for key, value in content.items():
        if isinstance(value, dict):
            yield from lines_of(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value


def test_every_line_of_the_example_robots_is_explained(readme):
    shown = readme.split('<!-- robots -->')[1].split('<!-- /robots -->')[0].strip()
    rows = [[cell.strip() for cell in row.split('|')[1:-1]] for row in shown.splitlines()[2:]]
    assert all(len(row) == 4 and len(row[3]) > 5 for row in rows)
    for column, robot in enumerate(ROBOTS, start=1):
        content = yaml.safe_load((ROOT / 'config' / f'{robot}.yaml').read_text(encoding='utf-8'))
        expected = dict(lines_of(content['/**']['ros__parameters']))
        told = {row[0].strip('`'): yaml.safe_load(row[column]) for row in rows if row[column]}
        assert told == expected


def test_the_table_of_speeds_is_the_one_that_was_measured(readme):
    pytest.importorskip('torch')
    from safe_vla_ros.bench.speed_report import markdown_table

    shown = readme.split('<!-- speed -->')[1].split('<!-- /speed -->')[0]
    files = [ROOT / 'docs' / f'speed_{name}.json' for name in ('openvla_oft_7b', 'openvla_7b')]
    summaries = [json.loads(file.read_text(encoding='utf-8')) for file in files]
    assert shown.strip() == markdown_table(summaries).strip()
    for file, summary in zip(files, summaries, strict=True):
        assert summary['command'].endswith(f'--json docs/{file.name}')


def test_every_local_link_and_picture_exists(readme):
    for target in re.findall(r'\]\(([^)]+)\)', readme):
        if not target.startswith('http'):
            assert (ROOT / target).exists(), target


def test_every_module_that_it_runs_exists(readme):
    modules = set(re.findall(r'python -m (safe_vla_ros[\w.]*)', readme))
    assert 'safe_vla_ros.demo' in modules
    for module in modules:
        path = ROOT / module.replace('.', '/')
        assert path.with_suffix('.py').is_file() or (path / '__main__.py').is_file(), module


def test_every_make_target_and_launch_file_exists(readme):
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    for target in set(re.findall(r'make ([a-z][\w-]*)', readme)):
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target
    for name in set(re.findall(r'(\w+\.launch\.py)', readme)):
        assert (ROOT / 'launch' / name).is_file(), name


def test_every_launch_argument_is_listed(readme):
    source = (ROOT / 'launch' / 'pruned_policy.launch.py').read_text(encoding='utf-8')
    listed = source.split('ARGUMENTS = (')[1].split('\n)')[0]
    for name in re.findall(r"^    \(\s*'(\w+)'", listed, re.MULTILINE):
        assert f'| `{name}` |' in readme, name


def test_every_extra_is_listed(readme):
    source = (ROOT / 'setup.py').read_text(encoding='utf-8').split('extras_require={')[1]
    for name in re.findall(r"^\s+'(\w+)':", source.split('}')[0], re.MULTILINE):
        assert f'`{name}`' in readme, name
