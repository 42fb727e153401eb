"""The command as a user runs it, with an untrained policy of the bundled kind."""

import json
import signal

import pytest
from mini_policies import write_untrained_policy
from replay_fakes import PRESSED_ONCE, InterruptingPolicy, load_interrupting_setup

from safe_vla_ros.replay.cli import main
from safe_vla_ros.replay.output import read_summary


@pytest.fixture(scope='module')
def policy(tmp_path_factory):
    names = {'cameras': ('corner', 'gripper'), 'joints': ('gripper_left', 'gripper_right')}
    return str(write_untrained_policy(tmp_path_factory.mktemp('policy'), **names))


@pytest.fixture
def robot_file(tmp_path, policy):
    path = tmp_path / 'robot.yaml'
    path.write_text(
        '/**:\n'
        '  ros__parameters:\n'
        f'    policy: {policy}\n'
        '    pruning: {method: safe, keep_ratio: 0.5}\n'
        'remappings:\n'
        '  ros__parameters:\n'
        '    corner/image_raw: /front/color\n'
    )
    return path


def rows_of(out):
    return [json.loads(line) for line in (out / 'steps.jsonl').open()]


def renamed(builder, old, new):
    builder.messages = [(t, new if n == old else n, *rest) for t, n, *rest in builder.messages]
    return builder


@pytest.fixture
def bags(build, robot):
    return [
        str(robot(build(f'bag_{index}'), duration_s=0.7, instruction='open the drawer').write())
        for index in range(2)
    ]


def test_a_bag_is_replayed_with_a_robots_file(tmp_path, build, robot, robot_file, capsys):
    path = renamed(robot(build()), '/corner/image_raw', '/front/color').write()
    out = tmp_path / 'out'
    options = ['--compare', 'none,fastv', '--set', 'pruning.fusion_weight=0.3']
    arguments = ['--params', str(robot_file), '--latency', '60', '--out', str(out), *options]
    assert main([str(path), *arguments]) == 0
    summary = read_summary(out)
    assert summary['complete']
    assert summary['settings']['methods'] == ['safe', 'none', 'fastv']
    assert summary['settings']['parameters']['pruning.keep_ratio'] == 0.5
    assert summary['settings']['parameters']['pruning.fusion_weight'] == 0.3
    assert summary['methods']['fastv']['kept_share'] == pytest.approx(0.5, abs=0.01)
    assert {len(row['actions']) for row in rows_of(out)} == {8}
    assert str(out / 'report.html') in capsys.readouterr().out.replace('\n', '')


def test_processes_and_shards_change_nothing(tmp_path, policy, bags):
    def replay(name, *options):
        out = tmp_path / name
        arguments = [*bags, '--policy', policy, '--latency', '60', '--overlays', 'none']
        assert main([*arguments, '--out', str(out), *options]) == 0
        return out

    one = rows_of(replay('one'))
    two = rows_of(replay('two', '--jobs', '2'))
    parts = [str(replay(f'part_{i}', '--shard', f'{i}/2')) for i in (1, 2)]
    assert main(['merge', *parts, '--out', str(tmp_path / 'merged')]) == 0
    merged = rows_of(tmp_path / 'merged')
    for row in (*one, *two, *merged):
        row.pop('stage_ms')
    assert one == two
    assert one == merged


def test_failed_bags_give_status_1_and_the_others_go_on(tmp_path, policy, bags, capsys):
    out = tmp_path / 'out'
    missing = str(tmp_path / 'missing')
    code = main([missing, bags[0], '--policy', policy, '--latency', '60', '--out', str(out)])
    assert code == 1
    assert [bag['status'] for bag in read_summary(out)['bags']] == ['failed', 'complete']
    assert 'does not exist' in capsys.readouterr().out.replace('\n', ' ')


REFUSED = [
    (['--latency', 'fast'], "--latency got 'fast'"),
    (['--latency', '-1'], 'allowed is measured or milliseconds'),
    (['--shard', '3/2'], 'i/n'),
    (['--compare', 'everything'], 'pruning.method'),
    (['--set', 'pruning.keep_ratio'], 'NAME=VALUE'),
    (['--set', 'pruning.keep_ratio=2.0'], 'pruning.keep_ratio'),
    (['--set', 'no_such_parameter=1'], 'no_such_parameter'),
    (['--topics', 'nothing=/a'], 'corner, gripper'),
    (['--policy', '/nowhere'], '/nowhere'),
    (['--params', '/nowhere.yaml'], '/nowhere.yaml'),
]


@pytest.mark.parametrize('case', REFUSED, ids=lambda case: ' '.join(case[0]))
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, policy, bags, capsys, case):
    options, says = case
    out = tmp_path / 'out'
    arguments = [bags[0], '--policy', policy, '--out', str(out), *options]
    assert main(arguments) == 2
    assert says in ' '.join(capsys.readouterr().out.split())
    assert not list(tmp_path.glob('*out*'))


@pytest.mark.parametrize(
    'options', [[], ['bag', '--jobs', '0'], ['bag', '--overlay-width', '7'], ['merge']]
)
def test_malformed_command_lines_are_explained(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    assert 'usage: replay' in capsys.readouterr().err


def check_partial(out):
    summary = read_summary(out)
    assert not summary['complete']
    assert 'interrupted' in {bag['status'] for bag in summary['bags']}
    assert 'Partial result' in (out / 'report.html').read_text()
    assert sum(bag['rows'] for bag in summary['bags']) == len(rows_of(out))
    assert not list(out.parent.glob('.out*'))


@pytest.mark.parametrize(
    ('out', 'sentence'),
    [
        ('..', 'is read; choose another --out'),
        ('.', 'exists; choose another'),
        ('bag_0/results', 'is read; choose another --out'),
        ('bag_0', 'is read; choose another --out'),
        ('file', 'exists; choose another'),
        ('file/below', 'cannot be written to'),
        ('dangling', 'exists; choose another'),
        ('/', 'is read; choose another --out'),
        ('/proc/results', 'cannot be written to'),
        ('x' * 300, 'cannot be written to'),
    ],
)
def test_a_place_for_results_is_refused_before_any_work(
    tmp_path, capsys, monkeypatch, out, sentence
):
    work = tmp_path / 'work'
    work.mkdir()
    monkeypatch.chdir(work)
    (work / 'file').touch()
    (work / 'dangling').symlink_to('nowhere')
    if out.startswith('bag_0'):
        out = str(tmp_path / out)
    monkeypatch.setattr('safe_vla_ros.replay.cli._settings', lambda _: pytest.fail('began'))
    assert main([str(tmp_path / 'bag_0'), '--out', out]) == 2
    assert sentence in ' '.join(capsys.readouterr().out.split())
    assert {file.name for file in work.iterdir()} == {'file', 'dangling'}


def test_a_value_that_is_no_yaml_is_refused(tmp_path, policy, bags, capsys):
    options = ['--set', 'pruning.keep_ratio=[', '--out', str(tmp_path / 'out')]
    assert main([*bags, '--policy', policy, *options]) == 2
    assert 'whose value is no YAML' in ' '.join(capsys.readouterr().out.split())


def test_ctrl_c_leaves_a_partial_result(tmp_path, policy, bags, setup_for, monkeypatch):
    setup = setup_for(policy=InterruptingPolicy(at=5))
    monkeypatch.setattr('safe_vla_ros.replay.cli.load_setup', lambda settings: setup)
    handler = signal.getsignal(signal.SIGINT)
    out = tmp_path / 'out'
    assert main([*bags, '--policy', policy, '--latency', '60', '--out', str(out)]) == 130
    check_partial(out)
    assert len(read_summary(out)['bags']) == 1
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_in_every_process_leaves_a_partial_result(
    tmp_path, build, robot, policy, monkeypatch
):
    # A terminal sends it to the worker processes as well, which must not mind.
    monkeypatch.setattr('safe_vla_ros.replay.cli.load_setup', load_interrupting_setup)
    monkeypatch.setenv(PRESSED_ONCE, str(tmp_path / 'pressed'))
    paths = [str(robot(build(f'bag_{i}'), duration_s=20.0, state_hz=10).write()) for i in (1, 2)]
    out = tmp_path / 'out'
    arguments = [*paths, '--policy', policy, '--latency', '60', '--out', str(out)]
    assert main([*arguments, '--jobs', '2']) == 130
    check_partial(out)


def test_a_full_disk_ends_with_a_sentence_and_keeps_the_older_result(
    tmp_path, policy, bags, capsys, small_files
):
    out = tmp_path / 'out'
    arguments = [*bags, '--policy', policy, '--latency', '60', '--out', str(out), '--overwrite']
    assert main([*arguments, '--overlays', 'none']) == 0
    before = {path: path.read_bytes() for path in out.rglob('*') if path.is_file()}
    with small_files(4000):
        assert main(arguments) == 2
    said = ' '.join(capsys.readouterr().out.split())
    assert 'error: results cannot be written to' in said
    assert 'nothing of them is kept' in said
    assert {path: path.read_bytes() for path in out.rglob('*') if path.is_file()} == before
    assert not list(tmp_path.glob('.out*'))
