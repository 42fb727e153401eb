"""A stage runs what is missing, budgets follow what was spent, and its report follows by hand."""

import json

import pytest
import yaml
from mini_policies import write_untrained_policy
from rich.console import Console

from safe_vla_ros.bench import study_run
from safe_vla_ros.bench.episode_journal import EpisodeJournal
from safe_vla_ros.bench.study_picture import draw_pareto, drawn
from safe_vla_ros.bench.study_plan import Condition, Plan, read_stage
from safe_vla_ros.bench.study_report import compare, make_markdown, make_report
from safe_vla_ros.bench.study_run import StageRunner
from safe_vla_ros.bench.success import main
from safe_vla_ros.sim.disturbances import DISTURBANCES
from safe_vla_ros.sim.evaluate import EpisodeSummary

TASKS = ('libero_spatial/0', 'libero_spatial/0/other')
FULL_MACS = 1000
COST = {'none': 1.0, 'safe': 0.5, 'random': 0.5, 'vla_cache': 0.42, 'refresh': 0.4}


def outcome(job):
    """Solve what a method solves: `safe` nothing with an odd seed, `random` every third."""
    method = job.settings.pruning.method
    solved = {'safe': job.seed % 2 == 0, 'random': job.seed % 3 == 0}.get(method, True)
    passes = 40 // job.settings.control.execute_steps
    full = passes if method == 'none' else 2 if method == 'safe' else 1
    return EpisodeSummary(
        task=job.task,
        seed=job.seed,
        init_state=job.init_state,
        method=method,
        success=solved and job.told is None,
        duration_s=4.0,
        inferences=passes,
        key_steps={'episode_start': 1},
        full_passes=full,
        tokens_kept=10 * full,
        tokens_total=10 * passes,
        decoder_macs=round(COST[method] * FULL_MACS * passes),
        decoder_macs_full=FULL_MACS * passes,
        similarities=[],
        starved_s=0.0,
        first_lifted='asked' if solved else 'other',
        action_error_mm=(job.seed % 5) * COST[method] if job.compare else None,
        action_bias_mm=0.5 if job.compare else None,
        cpu_s=2.0,
    )


class Workers:
    """Stands for the worker processes; remembers what it ran, and may be interrupted."""

    def __init__(self):
        self.jobs = []
        self.interrupt_after = None

    def __call__(self, jobs, work, *, processes, place):
        for job in jobs:
            if self.interrupt_after is not None and len(self.jobs) == self.interrupt_after:
                raise KeyboardInterrupt
            self.jobs.append(job)
            yield job, outcome(job)


@pytest.fixture
def workers(monkeypatch):
    workers = Workers()
    monkeypatch.setattr(study_run, 'run_warm', workers)
    return workers


@pytest.fixture(scope='session')
def policy(tmp_path_factory):
    return str(write_untrained_policy(tmp_path_factory.mktemp('policy') / 'untrained'))


def make_stage(**content):
    defaults = {
        'scenes': {'fresh': 12, 'first_seed': 100},
        'variants': ['none', 'safe', 'random:same_full_passes_as=safe'],
    }
    return read_stage('one', {**defaults, **content}, TASKS)


def run(policy, path, stage):
    with EpisodeJournal(path) as journal:
        runner = StageRunner(Plan(policy, 'float32', (stage,)), journal)
        return runner.run(stage, Console(quiet=True), processes=1)


def test_methods_meet_the_same_scenes_and_latencies(policy, workers, tmp_path):
    result = run(policy, tmp_path / 'e.jsonl', make_stage())
    met = {
        method: [
            (job.task, job.seed, job.latency_seed)
            for job in workers.jobs
            if job.settings.pruning.method == method
        ]
        for method in ('none', 'safe', 'random')
    }
    assert met['none'] == met['safe'] == met['random']
    assert len(set(met['none'])) == 12
    assert len(result.episodes) == 36


def test_a_run_goes_on_where_it_ended(policy, workers, tmp_path):
    path, stage = tmp_path / 'e.jsonl', make_stage()
    workers.interrupt_after = 7
    with pytest.raises(KeyboardInterrupt):
        run(policy, path, stage)
    workers.interrupt_after = None
    result = run(policy, path, stage)
    assert len(result.episodes) == 36
    assert len(workers.jobs) == 36
    again = run(policy, path, stage)
    assert len(workers.jobs) == 36
    assert make_report(again, {}) == make_report(result, {})


def test_more_scenes_run_only_what_is_new(policy, workers, tmp_path):
    path = tmp_path / 'e.jsonl'
    run(policy, path, make_stage(variants=['none']))
    run(policy, path, make_stage(variants=['none'], scenes={'fresh': 15, 'first_seed': 100}))
    assert len(workers.jobs) == 15


def test_a_control_has_the_share_of_full_passes_of_its_model(policy, workers, tmp_path):
    run(policy, tmp_path / 'e.jsonl', make_stage())
    shares = {
        job.settings.pruning.full_pass_share
        for job in workers.jobs
        if job.settings.pruning.method == 'random'
    }
    # safe: 2 of 10 passes.
    assert shares == {0.2}
    assert workers.jobs[-1].settings.pruning.method == 'random'


def test_the_unpruned_control_infers_as_rarely_as_it_must(policy, workers, tmp_path):
    stage = make_stage(variants=['none', 'safe', 'rare=none:same_macs_as=safe'])
    result = run(policy, tmp_path / 'e.jsonl', stage)
    # safe costs half: every 8th action instead of every 4th.
    assert {job.settings.control.execute_steps for job in workers.jobs[-12:]} == {8}
    rows = make_report(result, {})['conditions'][0]['variants']
    rare, safe = rows['rare@0.25']['all'], rows['safe@0.25']['all']
    assert rare['decoder_macs_per_s'] == pytest.approx(safe['decoder_macs_per_s'])
    assert rare['decoder_macs_share'] == 1.0


def test_another_latency_is_another_episode_in_the_same_scene(policy, workers, tmp_path):
    run(policy, tmp_path / 'e.jsonl', make_stage(variants=['none', 'again=none:latency=1']))
    seeds = [(job.seed, job.latency_seed) for job in workers.jobs]
    assert len({seed for seed, _ in seeds}) == 12
    assert len(set(seeds)) == 24


def test_sentences_and_disturbances_are_conditions(policy, workers, tmp_path):
    stage = make_stage(
        variants=['none'],
        scenes={'official': 2},
        sentences=['asked', 'swapped', 'blank'],
        disturbances=['', 'stopped'],
    )
    result = run(policy, tmp_path / 'e.jsonl', stage)
    # The other bowl's sentence in a scene is that scene's other task: 4 of them run once.
    assert len(workers.jobs) == 2 * (4 + 4)
    blank = result.of('none', Condition('blank', ''))
    assert [episode.success for episode in blank.values()] == [False] * 4
    swapped = result.of('none', Condition('swapped', ''))
    for scene, episode in swapped.items():
        assert ('/other' in scene) != ('/other' in episode.task)
    report = make_report(result, {})
    assert [(c['sentence'], c['disturbance']) for c in report['conditions']][:3] == [
        ('asked', ''),
        ('swapped', ''),
        ('blank', ''),
    ]
    assert '**stopped**' in make_markdown(report)


def test_figures_and_pairs_by_hand(policy, workers, tmp_path):
    report = make_report(run(policy, tmp_path / 'e.jsonl', make_stage()), {'policy': 'p'})
    condition = report['conditions'][0]
    safe = condition['variants']['safe@0.25']
    # Seeds 100..111, of which the even ones are solved.
    assert safe['outcomes'] == '101010101010'
    assert safe['all']['successes'] == 6
    assert safe['tasks'][TASKS[0]]['successes'] == 6
    assert safe['tasks'][TASKS[1]]['successes'] == 0
    assert safe['all']['asked_lifted_first'] == safe['all']['wrong_lifted_first'] == 6
    assert safe['all']['decoder_macs_share'] == 0.5
    assert safe['all']['full_pass_share'] == 0.2
    against = {row['second']: row for row in condition['against_unpruned']}
    row = against['safe@0.25']
    assert (row['lost'], row['won'], row['scenes']) == (6, 0, 12)
    assert row['difference'] == -0.5
    assert row['p'] == pytest.approx(2 / 2**6)
    # random@0.25 loses 8 of 12: the smaller p is multiplied by two, the other by one.
    assert against['random@0.25']['p_holm'] == pytest.approx(2 * 2 / 2**8)
    assert row['p_holm'] == pytest.approx(2 / 2**6)
    assert report['complete']


def test_methods_are_compared_on_scenes_that_both_have_run():
    empty = compare({}, {})
    assert (empty['scenes'], empty['p']) == (0, 1.0)


def test_goals_are_judged_as_they_were_written(policy, workers, tmp_path):
    not_worse = {'variant': 'refresh@0.25', 'than': 'none', 'margin_points': 3}
    stage = make_stage(
        variants=['none', 'safe', 'vla_cache', 'refresh'],
        scenes={'fresh': 200, 'first_seed': 0},
        candidate='refresh',
        goals=[
            {**not_worse, 'most_macs_share': 0.45},
            {**not_worse, 'most_macs_share': 0.3},
            {**not_worse, 'variant': 'safe@0.25'},
            {'variant': 'refresh@0.25', 'macs_within': 0.1},
            {'variant': 'refresh@0.25', 'macs_within': 0.01},
            {'variant': 'refresh@0.25', 'than': 'safe@0.25'},
        ],
    )
    goals = make_report(run(policy, tmp_path / 'e.jsonl', stage), {})['goals']
    assert [goal['met'] for goal in goals] == [True, False, False, False, None, True]
    assert goals[1]['text'].endswith('not met, it costs more than allowed')
    assert goals[3]['than'] == 'vla_cache@0.25'
    assert goals[3]['text'].endswith('not separated')
    assert 'no rival of refresh@0.25 within 1 %' in goals[4]['text']


def test_action_errors_are_pooled_and_compared_by_scene(policy, workers, tmp_path):
    stage = make_stage(
        variants=['none', 'safe', 'refresh'],
        scenes={'fresh': 5, 'first_seed': 0},
        candidate='refresh',
        action_error=True,
    )
    report = make_report(run(policy, tmp_path / 'e.jsonl', stage), {})
    condition = report['conditions'][0]
    # Seeds 0..4 with errors 0..4 times .5 and .4: means 1.0 and .8.
    assert condition['variants']['safe@0.25']['all']['action_error_mm'] == pytest.approx(1.0)
    assert condition['variants']['none']['all']['action_error_mm'] is None
    (row,) = condition['candidate_against_rivals']
    assert (row['first'], row['second']) == ('safe@0.25', 'refresh@0.25')
    assert row['error_difference_mm'] == pytest.approx(-0.2)
    assert '-0.20 [' in make_markdown(report)


def test_action_errors_are_measured_on_as_many_scenes_as_the_stage_says(policy, workers, tmp_path):
    stage = make_stage(
        variants=['none', 'safe'], scenes={'fresh': 5, 'first_seed': 0}, action_error=3
    )
    result = run(policy, tmp_path / 'e.jsonl', stage)
    compared = [cell.job.compare for cell in result.cells if cell.variant == 'safe@0.25']
    assert compared == [True, True, True, False, False]
    assert not any(cell.job.compare for cell in result.cells if cell.variant == 'none')


def test_ablations_may_be_compared_with_another_setting_of_the_candidate(policy, workers, tmp_path):
    stage = make_stage(
        variants=['none', 'refresh', 'bare=refresh:max_staleness=0.0', 'old=refresh:age_weight=.3'],
        candidate='refresh',
        ablations_of='bare',
    )
    condition = make_report(run(policy, tmp_path / 'e.jsonl', stage), {})['conditions'][0]
    pairs = [(row['first'], row['second']) for row in condition['candidate_against_ablations']]
    assert pairs == [('refresh@0.25', 'bare@0.25'), ('old@0.25', 'bare@0.25')]


def test_ablations_are_no_rivals(policy, workers, tmp_path):
    stage = make_stage(
        variants=['none', 'safe', 'refresh', 'changed=refresh:refresh_score=change'],
        candidate='refresh',
    )
    condition = make_report(run(policy, tmp_path / 'e.jsonl', stage), {})['conditions'][0]
    (rival,) = condition['candidate_against_rivals']
    (ablation,) = condition['candidate_against_ablations']
    assert (rival['first'], rival['second']) == ('safe@0.25', 'refresh@0.25')
    assert (ablation['first'], ablation['second']) == ('changed@0.25', 'refresh@0.25')


def test_what_is_missing_is_said(policy, workers, tmp_path):
    path, stage = tmp_path / 'e.jsonl', make_stage()
    workers.interrupt_after = 5
    with pytest.raises(KeyboardInterrupt):
        run(policy, path, stage)
    with EpisodeJournal(path, read_only=True) as journal:
        runner = StageRunner(Plan(policy, 'float32', (stage,)), journal)
        assert runner.count(stage) == (36, 5)
        report = make_report(runner.collect(stage), {})
    assert not report['complete']
    assert report['conditions'][0]['variants']['none']['outcomes'] == '111---------'
    assert make_markdown(report).startswith('_Not complete')


def test_the_picture_is_drawn(policy, workers, tmp_path):
    stage = make_stage(variants=['none', 'safe', 'refresh'], keep_ratios=[0.25, 0.125])
    report = make_report(run(policy, tmp_path / 'e.jsonl', stage), {'policy': 'p'})
    draw_pareto(report, tmp_path / 'pareto.png')
    assert (tmp_path / 'pareto.png').read_bytes().startswith(b'\x89PNG')


def test_the_picture_leaves_out_ablations_and_the_oracle():
    methods = {
        'none': 'none',
        'rarer@0.5': 'none',
        'refresh@0.5': 'refresh',
        'refresh@0.25': 'refresh',
        'old@0.5': 'refresh',
        'mine@0.5': 'safe',
        'oracle@0.5': 'oracle',
    }
    report = {'variants': {label: {'method': method} for label, method in methods.items()}}
    assert drawn(report) == {
        'none': ['none'],
        'rarer': ['rarer@0.5'],
        'refresh': ['refresh@0.5', 'refresh@0.25'],
        'mine': ['mine@0.5'],
    }


def test_the_command_writes_its_reports_and_goes_on_after_an_interruption(
    policy, workers, tmp_path, capsys
):
    out = tmp_path / 'out'
    options = ['--policy', policy, '--tasks', *TASKS, '--episodes', '2', '--out', str(out)]
    options += ['--methods', 'none', 'safe', '--keep-ratio', '.25', '--jobs', '1']
    workers.interrupt_after = 3
    assert main(options) == 130
    assert 'holds 3 episodes. The same command goes on' in ' '.join(capsys.readouterr().out.split())
    workers.interrupt_after = None
    assert main([*options, '--count']) == 0
    assert 'success: 8 episodes, 3 of them held' in capsys.readouterr().out
    assert main(options) == 0
    assert len(workers.jobs) == 8
    report = json.loads((out / 'success.json').read_text(encoding='utf-8'))
    assert report['complete']
    assert (out / 'success.md').read_text(encoding='utf-8') == make_markdown(report) + '\n'
    assert (out / 'success.png').exists()
    capsys.readouterr()
    assert main(['--table', str(out / 'success.json')]) == 0
    assert capsys.readouterr().out == make_markdown(report) + '\n'


def test_the_stress_set_is_a_table_for_each_disturbance(policy, workers, tmp_path):
    options = ['--policy', policy, '--tasks', *TASKS, '--fresh', '2', '--out', str(tmp_path)]
    assert main([*options, '--methods', 'none', '--jobs', '1', '--stress']) == 0
    assert {job.disturbance for job in workers.jobs} == {'', *DISTURBANCES}
    report = json.loads((tmp_path / 'success.json').read_text(encoding='utf-8'))
    assert len(report['conditions']) == 1 + len(DISTURBANCES)


def test_a_plan_runs_stage_by_stage(policy, workers, tmp_path, capsys):
    plan = tmp_path / 'plan.yaml'
    stages = {
        'first': {'scenes': {'fresh': 2}, 'variants': ['none']},
        'second': {'scenes': {'fresh': 3}, 'variants': ['none']},
    }
    content = {'policy': policy, 'tasks': list(TASKS), 'stages': stages}
    plan.write_text(yaml.safe_dump(content), encoding='utf-8')
    options = ['--plan', str(plan), '--out', str(tmp_path / 'out'), '--jobs', '1']
    assert main([*options, '--stage', 'second']) == 0
    assert not (tmp_path / 'out' / 'first.json').exists()
    assert main(options) == 0
    # The scenes of the first are among those of the second.
    assert len(workers.jobs) == 3
    assert main([*options, '--stage', 'third']) == 2
    assert 'no stage third; it has first, second' in ' '.join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ('message', 'options'),
    [
        ('pruning.keep_ratio = 2.0', ['--keep-ratio', '2.0', '--methods', 'safe']),
        ('keep is neither a parameter', ['--methods', 'safe:keep=1']),
        ('is no report of this program', ['--table', '/nowhere.json']),
        ('nowhere.yaml', ['--plan', '/nowhere.yaml']),
    ],
)
def test_what_cannot_be_run_ends_with_a_sentence(policy, tmp_path, capsys, message, options):
    assert main(['--policy', policy, '--out', str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
