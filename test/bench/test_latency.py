"""Timing of methods on the same frames: alternating, and ratios by hand."""

import numpy as np
import pytest
from mini_policies import write_untrained_policy

from safe_vla_ros.bench import latency
from safe_vla_ros.bench.latency import Timing, markdown_table, summarise, time_methods
from safe_vla_ros.runtime.pruning_totals import PrunedPass
from safe_vla_ros.types import ActionChunk, PruningRecord, PruningSettings

FULL = PrunedPass(8, 8, None, None, 100, 100)
PRUNED = PrunedPass(2, 8, None, None, 40, 100)


class Policy:
    """Remembers who planned on what, with whose memory."""

    def __init__(self):
        self.calls = []
        self.memories = 0

    def new_episode(self):
        self.memories += 1
        return self.memories

    def infer(self, observation, memory, pruning):
        self.calls.append((observation, memory, pruning.method))
        record = PruningRecord('none', {}, {}, False, None, None, 0.0, {}, {}, {}, 0, 0)
        return ActionChunk(np.zeros((8, 3)), np.zeros((8, 3)), np.ones(8), record)


def test_methods_take_turns_on_every_observation_and_keep_their_memory():
    policy = Policy()
    methods = {name: PruningSettings(method=name) for name in ('none', 'safe', 'refresh')}
    timings = list(time_methods(policy, methods, [['a', 'b', 'c'], ['d']], repeats=2))
    assert len(timings) == 3 * 4 * 2
    for start in range(0, len(policy.calls), 3):
        turn = policy.calls[start : start + 3]
        assert len({observation for observation, _, _ in turn}) == 1
        assert {method for _, _, method in turn} == set(methods)
    first = [policy.calls[start][2] for start in range(0, 9, 3)]
    assert set(first) == set(methods)
    # A memory of its own for every method, episode and repeat.
    assert policy.memories == 3 * 2 * 2
    assert len({(memory, method) for _, memory, method in policy.calls}) == policy.memories


def test_means_and_ratios_by_hand():
    timings = [
        Timing('none', (0, 0), 30.0, 29.0, FULL),
        Timing('none', (0, 1), 30.0, 29.0, FULL),
        Timing('safe', (0, 0), 30.0, 29.0, FULL),
        Timing('safe', (0, 1), 10.0, 9.0, PRUNED),
    ]
    report = summarise(timings, baseline='none', threads=1)
    safe = report['methods']['safe']
    assert safe['mean_ms'] == 20.0
    assert safe['full_pass_share'] == 0.5
    assert safe['decoder_macs_share'] == 0.7
    assert safe['times_as_fast'] == pytest.approx(1.5)
    low, high = safe['times_as_fast_95']
    assert (low, high) == (pytest.approx(1.0), pytest.approx(3.0))
    assert report['methods']['none']['times_as_fast_95'] == [1.0, 1.0]
    assert report['processor_share'] == pytest.approx(0.96)
    assert '| `safe` | 20.0 | 20.0 |' in markdown_table(report)


@pytest.mark.parametrize(
    ('message', 'options'),
    [
        ('needs none', ['--methods', 'safe']),
        ('keep is neither', ['--methods', 'none', 'safe:keep=1']),
        ('pruning.keep_ratio = 3.0', ['--keep-ratio', '3']),
    ],
)
def test_what_cannot_be_timed_ends_with_a_sentence(tmp_path, capsys, message, options):
    policy = write_untrained_policy(tmp_path / 'untrained')
    assert latency.main(['--policy', str(policy), *options]) == 2
    assert message in capsys.readouterr().err
