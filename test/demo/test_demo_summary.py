"""What the demo makes of what the node told."""

from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from safe_vla_ros.demo.demo_summary import (
    figures_table,
    make_summary,
    success_table,
    write_summary,
)
from safe_vla_ros.demo.options import parse_options
from safe_vla_ros.demo.results import EpisodeResult, pruning_numbers


def step(index, *, kept, key=False, latency_ms=20.0, gmacs=1.0):
    return {
        'step': str(index),
        'warm_up': 'true' if index == 0 else 'false',
        'method': 'safe',
        'tokens_total': '100',
        'tokens_computed': str(kept),
        'pruning_ratio': f'{1 - kept / 100:.4f}',
        'key_step': 'true' if key else 'false',
        'reason': 'episode_start' if key else 'none',
        'similarity': 'none' if key else '0.9',
        'latency_ms': f'{latency_ms:.2f}',
        'observation_age_s': '0.060',
        'decoder_gmacs': f'{gmacs:.4f}',
        'decoder_gmacs_full': '2.0000',
        'stage_ms/decode': '12.00',
    }


def episode(method, task='libero_spatial/0', outcome='success', **changes):
    steps = (
        step(0, kept=100, key=True, latency_ms=90.0, gmacs=2.0),
        step(1, kept=20),
        step(2, kept=30),
    )
    if method == 'none':
        steps = tuple(step(i, kept=100, latency_ms=25.0, gmacs=2.0) for i in range(3))
    values = {
        'method': method, 'task': task, 'seed': 7, 'outcome': outcome, 'elapsed_s': 2.0,
        'duration_s': 1.5, 'inferences': steps,
        'robot': ({'camera_hz': '3.0'}, {'camera_hz': '20.0', 'physics_hz': '80.0'}),
    }  # fmt: skip
    return EpisodeResult(**{**values, **changes})


DIAGNOSTICS = {
    'safe': {
        'pruned_policy: control': {
            'control_hz': '50.0000', 'ticks': '1000', 'missed_ticks': '2',
            'tick_deviation_ms_p99': '3.10', 'halts': 'paused 1',
        }
    }
}  # fmt: skip


@pytest.fixture
def summary():
    options = parse_options(['--tasks', 'libero_spatial/0,libero_spatial/8'])
    episodes = [
        episode('safe'),
        episode('safe', 'libero_spatial/8', 'timeout'),
        episode('none'),
        episode('none', 'libero_spatial/8'),
    ]
    return make_summary(options, episodes, DIAGNOSTICS, complete=True)


def test_tokens_kept_count_every_pass_key_steps_included():
    numbers = pruning_numbers([episode('safe')])
    assert numbers['tokens_kept_share'] == pytest.approx(0.5)
    assert numbers['pruning_ratio_of_pruned_steps'] == pytest.approx(0.75)
    assert (numbers['key_steps'], numbers['key_step_reasons']) == (1, {'episode_start': 1})


def test_the_warm_up_is_not_part_of_the_latency():
    numbers = pruning_numbers([episode('safe')])
    assert numbers['latency_ms']['max'] == 20.0
    assert numbers['latency_ms']['count'] == 2
    assert numbers['observation_to_command_ms']['p50'] == pytest.approx(60.0)


def test_the_summary_compares_with_none_on_the_same_seeds(summary):
    assert summary['complete'] is True
    safe, none = summary['methods']['safe'], summary['methods']['none']
    assert safe['tasks']['libero_spatial/8'] == {
        'episodes': 1, 'successes': 0, 'success_rate': 0.0, 'elapsed_s_of_successes': None,
        'tokens_kept_share': 0.5, 'key_steps': 1,
    }  # fmt: skip
    assert (safe['all']['successes'], none['all']['successes']) == (1, 2)
    assert summary['comparison']['safe'] == {'decoder_macs_saved': 1.5, 'latency_ratio': 1.25}
    assert 'bound by dispatch' in summary['comparison']['note']
    assert safe['control'] == {
        'control_hz': 50.0, 'ticks': 1000, 'missed_ticks': 2, 'tick_deviation_ms_p99': 3.1,
        'halts': 'paused 1',
    }  # fmt: skip
    assert safe['rates'] == {
        'control_hz': 50.0, 'inference_hz': 2.0, 'camera_hz': 20.0, 'physics_hz': 80.0,
    }  # fmt: skip


def test_the_summary_is_strict_json_and_replaces_an_older_file(summary, tmp_path):
    path = tmp_path / 'out' / 'summary.json'
    write_summary({'old': True}, path)
    write_summary(summary, path)
    assert json.loads(path.read_text()) == json.loads(json.dumps(summary))
    assert list(path.parent.iterdir()) == [path]


def test_the_tables_show_every_task_and_figure(summary):
    console = Console(file=StringIO(), width=140)
    console.print(success_table(summary))
    console.print(figures_table(summary))
    text = console.file.getvalue()
    for shown in (
        'libero_spatial/0',
        'libero_spatial/8',
        '0/1',
        '1/2',
        '50%',
        'episode_start 2',
        '20.0 / 20.0',
        '1000 / 2',
    ):
        assert shown in text


def test_a_method_without_diagnostics_and_latency_still_makes_tables():
    options = parse_options(['--method', 'none'])
    lonely = episode('none', inferences=(step(0, kept=100, key=False),), robot=())
    summary = make_summary(options, [lonely], {}, complete=False)
    assert summary['methods']['none']['latency_ms'] == {'count': 0}
    Console(file=StringIO()).print(figures_table(summary))
