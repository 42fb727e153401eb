"""The demo's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_vla_ros.demo.options import parse_options
from safe_vla_ros.sim.tasks import TASKS


def test_the_defaults_are_one_episode_per_task_with_safe_and_then_none():
    options = parse_options([])
    assert options.tasks == TASKS
    assert (options.episodes, options.methods) == (1, ('safe', 'none'))
    assert options.picture == Path('out/demo/demo.png')
    assert 0 <= options.domain_id <= 101


def test_another_method_is_compared_with_none_and_none_with_nothing():
    assert parse_options(['--method', 'fastv']).methods == ('fastv', 'none')
    assert parse_options(['--method', 'none']).methods == ('none',)


def test_tasks_keep_their_order_and_are_named_once():
    first, second = 'libero_spatial/8/other', 'libero_goal/3'
    assert parse_options(['--tasks', f'{first},{second},{first}']).tasks == (first, second)


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--tasks', 'fly'], "unknown task 'fly'; allowed: libero_spatial,"),
        (['--episodes', '0'], 'must be an integer from 1'),
        (['--episodes', 'many'], "got 'many'"),
        (['--seed', '-1'], 'must be an integer from 0'),
        (['--keep-ratio', '0.01'], 'must be a number from 0.05 to 1'),
        (['--keep-ratio', 'nan'], 'must be a number from 0.05 to 1'),
        (['--method', 'best'], "invalid choice: 'best'"),
        (['--record', '.'], '--record . exists; name a directory that does not'),
        (['--params-file', 'nowhere.yaml'], '--params-file nowhere.yaml is not a file'),
        (['--real-time-factor', '0.5'], 'other than 1 needs --sim-time'),
        (['--domain-id', '233'], 'must be an integer from 0 to 232'),
    ],
)
def test_a_wrong_option_ends_with_a_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(['--help'])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ('tasks', 'episodes', 'seed', 'method', 'keep-ratio', 'record', 'no-video'):
        assert f'--{option}' in text
