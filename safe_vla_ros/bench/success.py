"""Measure the success of a policy in closed loop, per scene, bowl and pruning method.

Every variant runs the same scenes with the same spread of the modelled latency, through the node's
own playback and limits, in simulated time: figures do not depend on the machine's speed. Episodes
go one by one into a file in --out. Interrupt the program whenever you like; the same command goes
on where it ended.
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from safe_vla_ros.bench.episode_journal import EpisodeJournal
from safe_vla_ros.bench.study_picture import draw_pareto
from safe_vla_ros.bench.study_plan import SENTENCES, Plan, read_plan, read_stage
from safe_vla_ros.bench.study_report import main_rows, make_markdown, make_report
from safe_vla_ros.bench.study_run import StageResult, StageRunner
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import find_policy
from safe_vla_ros.sim.disturbances import DISTURBANCES
from safe_vla_ros.sim.episode_workers import default_processes
from safe_vla_ros.sim.tasks import TASKS
from safe_vla_ros.whole_files import write_json, written_whole

TEST_SEED = 10_000
"""First seed of scenes that chose nothing: not used in collecting, training or calibrating."""

METHODS = ('none', 'safe', 'random:same_full_passes_as=safe', 'fastv')
JOURNAL = 'episodes.jsonl'
TERMINAL_COLUMNS = ('method', 'success [95 %]', 'lost / won', 'tokens', 'MACs', 'seconds')
INTERRUPTED = 130

_EPILOG = """\
A variant is [label=]method[:key=value,...]. A key is a parameter of the node, with or without
'pruning.', or one of
  full_pass_share=0.2       random and grid leave this share of the passes unpruned
  same_full_passes_as=safe  ... the share that another variant came to
  same_macs_as=refresh      unpruned passes, so rare that they cost no more per second
  latency=1                 another spread of the latency in the same scenes
A variant that does not say keep_ratio runs once for every --keep-ratio, as label@ratio.

examples:
  python -m safe_vla_ros.bench.success                      four methods, 50 official states each
  python -m safe_vla_ros.bench.success --methods none --sentences asked swapped blank
  python -m safe_vla_ros.bench.success --methods none refresh:max_staleness=.1 --keep-ratio .25
  python -m safe_vla_ros.bench.success --methods none refresh slow=none:same_macs_as=refresh
  python -m safe_vla_ros.bench.success --methods none safe refresh --fresh 60 --stress
  nohup python -m safe_vla_ros.bench.success --plan docs/study/plan.yaml --out out/study &
  python -m safe_vla_ros.bench.success --plan docs/study/plan.yaml --out out/study --count
  python -m safe_vla_ros.bench.success --plan docs/study/plan.yaml --out out/study --report
  python -m safe_vla_ros.bench.success --plan docs/study/plan.yaml --out out/study --report \\
      --archive docs/study/episodes.jsonl.gz
  python -m safe_vla_ros.bench.success --table out/study/finalists.json

In --out: episodes.jsonl, and for every stage STAGE.json, STAGE.md and STAGE.png."""


def run(options: argparse.Namespace, console: Console) -> int:
    """Run what the options ask for; returns the exit status."""
    plan = _plan(options)
    journal_path = options.out / JOURNAL
    only_read = options.count or options.report
    with EpisodeJournal(journal_path, read_only=only_read, archive=options.archive) as journal:
        if journal.repaired:
            console.print(f'{journal_path}: the last line was half written and is taken off')
        runner = StageRunner(plan, journal)
        if options.count:
            return _count(plan, runner, options, console)
        status = 0
        try:
            for stage in plan.stages:
                if options.report:
                    result = runner.collect(stage)
                else:
                    result = runner.run(stage, console, processes=options.jobs)
                _write(result, plan, options.out, console)
        except KeyboardInterrupt:
            console.print(
                f'\ninterrupted: {journal_path} holds {len(journal)} episodes. '
                'The same command goes on from there; --report shows what there is.'
            )
            status = INTERRUPTED
        if options.archive is not None:
            journal.write_archive(options.archive)
            console.print(f'wrote {options.archive}, {len(journal)} episodes')
    return status


def _plan(options: argparse.Namespace) -> Plan:
    if options.plan is None:
        content: dict[str, Any] = {
            'scenes': {'fresh': options.fresh, 'first_seed': options.seed}
            if options.fresh
            else {'official': options.episodes},
            'keep_ratios': options.keep_ratio,
            'variants': options.methods,
            'sentences': options.sentences,
            'disturbances': ['', *options.stress] if options.stress is not None else [''],
            'candidate': options.candidate,
            'action_error': options.action_error,
        }
        stage = read_stage('success', content, tuple(options.tasks))
        return Plan(options.policy, options.dtype, (stage,))
    plan = read_plan(options.plan)
    if options.stage:
        known = {stage.name: stage for stage in plan.stages}
        unknown = [name for name in options.stage if name not in known]
        if unknown:
            msg = f'{options.plan} has no stage {unknown[0]}; it has {", ".join(known)}'
            raise SafeVlaError(msg)
        plan = Plan(plan.policy, plan.dtype, tuple(known[name] for name in options.stage))
    return plan


def _count(plan: Plan, runner: StageRunner, options: argparse.Namespace, console: Console) -> int:
    """Say how much there is to do, with the processor time of the episodes that are held."""
    left, cpu_s, held_in_all = 0, 0.0, 0
    for stage in plan.stages:
        total, held = runner.count(stage)
        episodes = runner.collect(stage).episodes.values()
        cpu_s += sum(episode.cpu_s for episode in episodes)
        held_in_all += held
        left += total - held
        console.print(f'{stage.name}: {total} episodes, {held} of them held')
    if held_in_all:
        each = cpu_s / held_in_all
        hours = left * each / options.jobs / 3600.0
        console.print(
            f'{each:.1f} s of processor time an episode so far: about {hours:.1f} hours left on '
            f'{options.jobs} cores, were every episode like those'
        )
    return 0


def _write(result: StageResult, plan: Plan, out: Path, console: Console) -> None:
    facts = {
        'policy': find_policy(plan.policy).name,
        'dtype': plan.dtype,
        'machine': f'{platform.machine()}, Python {platform.python_version()}',
        'versions': {name: version(name) for name in ('torch', 'transformers', 'mujoco')},
    }
    report = make_report(result, facts)
    stage = result.stage
    base = out / stage.name
    write_json(base.with_suffix('.json'), report)
    with written_whole(base.with_suffix('.md')) as partial:
        partial.write_text(make_markdown(report) + '\n', encoding='utf-8')
    draw_pareto(report, base.with_suffix('.png'))
    for index, condition in enumerate(stage.conditions):
        console.print(_terminal_table(report, index, f'{stage.name}, {condition.name}'))
    for goal in report['goals']:
        console.print(f'goal: {goal["text"]}')
    if len(report['codes']) > 1:
        console.print(
            f'WARNING the episodes of {stage.name} ran with {len(report["codes"])} states of the '
            f'code ({report["codes"]}); begin anew in another --out to have them alike'
        )
    console.print(f'wrote {base}.json, .md and .png')


def _terminal_table(report: dict[str, Any], index: int, title: str) -> Table:
    """Lay the columns that fit into a terminal out; the Markdown has all."""
    titles, *rows = main_rows(report['conditions'][index])
    shown = [titles.index(name) for name in TERMINAL_COLUMNS if name in titles]
    table = Table(title=title)
    for place in shown:
        table.add_column(titles[place], justify='left' if place == 0 else 'right', no_wrap=True)
    for row in rows:
        table.add_row(*(row[place].strip('`') for place in shown))
    return table


def _show(paths: list[Path]) -> int:
    path = paths[0]
    try:
        for path in paths:
            print(make_markdown(json.loads(path.read_text(encoding='utf-8'))))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f'ERROR {path} is no report of this program: {error!r}', file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.success',
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--plan', type=Path, metavar='FILE', help='run a plan; what it says is not said here')
    add('--stage', nargs='+', metavar='NAME', help='only these stages of the plan')
    add('--out', type=Path, default=Path('out/success'), help='folder (default: %(default)s)')
    add(
        '--jobs',
        type=int,
        default=default_processes(),
        help='processes (default: one per core that has memory, here %(default)s)',
    )
    add('--count', action='store_true', help='run nothing; say how much there is to do')
    add(
        '--archive',
        type=Path,
        metavar='FILE.jsonl.gz',
        help='compressed episodes: those in it are not run again; all are in it afterwards',
    )
    add('--report', action='store_true', help='run nothing; write the reports of what there is')
    add('--table', nargs='+', type=Path, metavar='JSON', help='print the Markdown of reports')
    one = parser.add_argument_group('without a plan')
    add = one.add_argument
    add('--policy', default='mini_libero', help='policy: directory or bundled name')
    add('--dtype', default='float32', choices=['float32', 'bfloat16'])
    add(
        '--tasks',
        nargs='+',
        default=list(TASKS),
        metavar='TASK',
        help='libero_spatial/0, or libero_spatial/0/other for the other bowl '
        "(default: the bundled policy's)",
    )
    add('--methods', nargs='+', default=list(METHODS), metavar='VARIANT', help='see below')
    add('--keep-ratio', nargs='+', type=float, default=[0.25, 0.125], metavar='SHARE')
    add('--episodes', type=int, default=50, help='official initial states per task (default: 50)')
    add('--fresh', type=int, default=0, metavar='N', help='instead N fresh placements in all')
    add('--seed', type=int, default=TEST_SEED, help='seed of the first fresh placement')
    add('--sentences', nargs='+', default=['asked'], choices=SENTENCES)
    add(
        '--stress',
        nargs='*',
        metavar='DISTURBANCE',
        help=f'also under these (default: all): {", ".join(DISTURBANCES)}',
    )
    add('--candidate', default='refresh', metavar='METHOD', help='compare it with every other')
    add('--action-error', action='store_true', help='measure it; takes longer')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.table:
        return _show(options.table)
    if options.stress == []:
        options.stress = list(DISTURBANCES)
    if options.jobs < 1:
        parser.error(f'--jobs is {options.jobs}, allowed is 1 up')
    try:
        return run(options, Console())
    except SafeVlaError as error:
        print(f'ERROR {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, for the background
    raise SystemExit(main())
