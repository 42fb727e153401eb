import json
import re
from pathlib import Path

import pytest

from safe_vla_ros.replay.bag_replay import BagTask
from safe_vla_ros.replay.errors import ReplayError
from safe_vla_ros.replay.jobs import Shard, replay_here
from safe_vla_ros.replay.merge import merge
from safe_vla_ros.replay.output import ResultFolder, read_summary

SETTINGS = {
    'policy': 'fake',
    'methods': ['safe', 'none'],
    'latency': '60 ms',
    'execute_steps': 4,
    'action_period_s': 0.05,
    'parameters': {'control_rate_hz': 50.0},
}


class Quiet:
    def __init__(self):
        self.ended = []

    def update(self, key, done_s, all_s):
        pass

    def finish(self, result):
        self.ended.append(result['key'])


@pytest.fixture
def bags(build, robot, messages):
    """Return three good bags and, between them, one that cannot be replayed."""
    paths = []
    for index, duration_s in enumerate((1.2, 0.8, 1.0)):
        builder = robot(build(f'bag_{index}'), duration_s=duration_s)
        paths.append(builder.write())
    empty = build('empty').write()
    return [paths[0], empty, *paths[1:]]


@pytest.fixture
def replay(tmp_path, setup_for, bags):
    """Return a function that replays some of the bags into a folder."""

    def run(name, shard='1/1', *, settings=SETTINGS, stop=lambda: False, overwrite=False):
        tasks = [BagTask(index, path) for index, path in enumerate(bags)]
        shard = Shard.parse(shard)
        with ResultFolder(tmp_path / name, overwrite=overwrite) as folder:
            results = replay_here(shard.of(tasks), setup_for, folder.bag, Quiet(), stop)
            header = {'version': '0', 'shard': str(shard), 'settings': settings}
            folder.publish(header, [str(path) for path in bags], results)
        return tmp_path / name

    return run


def without_wall_clock(value):
    """Drop what depends on how fast the machine was and on which part this is."""
    if isinstance(value, dict):
        return {
            key: without_wall_clock(element)
            for key, element in value.items()
            if key not in {'speed', 'wall_clock', 'shard'}
        }
    if isinstance(value, list):
        return [without_wall_clock(element) for element in value]
    return value


def same_files(left, right):
    names = {path.relative_to(left) for path in left.rglob('*') if path.is_file()}
    assert names == {path.relative_to(right) for path in right.rglob('*') if path.is_file()}
    for name in sorted(names - {Path('report.html')}):
        if name.suffix == '.json':
            mine, theirs = (json.loads((folder / name).read_text()) for folder in (left, right))
            assert without_wall_clock(mine) == without_wall_clock(theirs), name
        else:
            assert (left / name).read_bytes() == (right / name).read_bytes(), name


def test_merged_shards_equal_one_replay_of_all(tmp_path, replay):
    whole = replay('whole')
    for count in (2, 3):
        parts = [replay(f'part_{count}_{i}', f'{i}/{count}') for i in range(count, 0, -1)]
        merge(parts, tmp_path / f'merged_{count}', overwrite=False)
        same_files(whole, tmp_path / f'merged_{count}')


def test_other_bags_go_on_and_the_result_says_what_is_missing(replay):
    summary = read_summary(replay('whole'))
    assert [bag['status'] for bag in summary['bags']] == [
        'complete',
        'failed',
        'complete',
        'complete',
    ]
    assert 'holds no messages' in summary['bags'][1]['error']
    assert not summary['complete']
    assert summary['why_partial'] == ['1 bags could not be replayed']
    assert summary['methods']['safe']['inferences'] > 10


def test_a_missing_shard_makes_the_merged_result_partial(tmp_path, replay):
    merge([replay('part', '1/2')], tmp_path / 'merged', overwrite=False)
    summary = read_summary(tmp_path / 'merged')
    assert not summary['complete']
    assert summary['why_partial'][0] == '2 of 4 bags are not in this result'
    assert 'Partial result' in (tmp_path / 'merged' / 'report.html').read_text()


def test_a_bag_cannot_be_merged_twice(tmp_path, replay):
    part = replay('part', '1/4')
    with pytest.raises(ReplayError, match=r'bag_0 is in .*part and in .*again'):
        merge([part, replay('again', '1/4')], tmp_path / 'merged', overwrite=False)
    assert not (tmp_path / 'merged').exists()


def test_results_of_other_settings_are_not_merged(tmp_path, replay):
    first = replay('first', '1/4')
    other = replay('other', '2/4', settings={**SETTINGS, 'parameters': {'control_rate_hz': 20.0}})
    with pytest.raises(ReplayError, match=r'settings parameters control_rate_hz: 50.0 and 20.0'):
        merge([first, other], tmp_path / 'merged', overwrite=False)


@pytest.mark.parametrize('content', [None, '{', '[]', '{"a": 1}'])
def test_only_results_are_merged(tmp_path, content):
    folder = tmp_path / 'other'
    folder.mkdir()
    if content is not None:
        (folder / 'summary.json').write_text(content)
    with pytest.raises(ReplayError, match='is not a replay result'):
        merge([folder], tmp_path / 'merged', overwrite=False)


def test_a_stopped_replay_is_valid_and_says_so(replay):
    asked = iter([False] * 150)
    summary = read_summary(replay('stopped', stop=lambda: next(asked, True)))
    # It is asked with every message, so that it stops in the second good bag and not by chance.
    assert [bag['status'] for bag in summary['bags']] == ['complete', 'failed', 'interrupted']
    stopped = summary['bags'][-1]
    assert 0.0 < stopped['played_s'] < stopped['duration_s']
    assert not summary['complete']
    assert summary['why_partial'] == [
        '1 of 4 bags are not in this result',
        '1 bags were interrupted',
        '1 bags could not be replayed',
    ]


def test_an_error_leaves_nothing_behind(tmp_path):
    def begin_and_fail():
        with ResultFolder(tmp_path / 'out', overwrite=False) as folder:
            folder.bag('x').mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        begin_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_nothing_under_the_name_before_everything_is_written(tmp_path, replay, monkeypatch):
    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr('safe_vla_ros.replay.output.write_report', fail)
    with pytest.raises(ReplayError, match=r'cannot be written to .*: disk full'):
        replay('out')
    assert not (tmp_path / 'out').exists()
    assert not list(tmp_path.glob('.out*'))


def test_an_older_result_is_replaced_only_on_request(tmp_path, replay):
    out = replay('out', '1/4')
    with pytest.raises(ReplayError, match='--overwrite'):
        replay('out', '1/4')
    replay('out', '2/4', overwrite=True)
    assert read_summary(out)['shard'] == '2/4'
    assert not list(tmp_path.glob('.out*'))


def test_what_is_no_result_is_never_replaced(tmp_path):
    precious = tmp_path / 'precious'
    precious.mkdir()
    (precious / 'thesis.txt').write_text('...')
    with (
        pytest.raises(ReplayError, match='is no replay result'),
        ResultFolder(precious, overwrite=True),
    ):
        pass
    assert (precious / 'thesis.txt').exists()


def test_the_report_holds_everything_and_reaches_for_nothing(replay):
    html = (replay('out') / 'report.html').read_text()
    assert 'holds no messages' in html
    assert html.count('<svg') > 20
    assert html.count('data:image/jpeg;base64,') >= 3
    assert not re.search(r'(src|href)="(?!data:)', html)
    assert '<script' not in html
    for name in ('safe', 'none', 'episode_start', 'similarity', 'control_rate_hz'):
        assert name in html.lower()


def test_names_from_outside_are_escaped(tmp_path, setup_for, build, robot):
    path = robot(build('<b>&bag'), duration_s=0.6).write()
    with ResultFolder(tmp_path / 'out', overwrite=False) as folder:
        results = replay_here([BagTask(0, path)], setup_for, folder.bag, Quiet(), lambda: False)
        folder.publish({'version': '0', 'shard': '', 'settings': SETTINGS}, [str(path)], results)
    html = (tmp_path / 'out' / 'report.html').read_text()
    assert '<b>&bag' not in html
    assert '&lt;b&gt;&amp;bag' in html


@pytest.mark.parametrize('text', ['', '1', '0/2', '3/2', 'a/b', '1/0', '-1/2', '1/2/3'])
def test_malformed_shards_are_refused(text):
    with pytest.raises(ReplayError, match='i/n'):
        Shard.parse(text)


def test_shards_are_disjoint_and_complete():
    tasks = [BagTask(index, Path(f'bag_{index}')) for index in range(10)]
    parts = [Shard(number, 3).of(tasks) for number in (1, 2, 3)]
    assert sorted(task.index for part in parts for task in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_no_policy_is_loaded_for_an_empty_shard():
    def load():
        raise AssertionError

    assert replay_here([], load, Path, Quiet(), lambda: False) == []
