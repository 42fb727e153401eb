"""Measure the success of a policy in closed loop, per task and pruning method, on paired seeds.

Every method runs the same scenes through the node's own playback and limits, in simulated time
with a modelled latency. `random` leaves as many passes unpruned as `safe` did, so the two differ
only in which tokens they keep. The success figures do not depend on the machine's speed.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import find_policy, read_spec
from safe_vla_ros.pruning import PRUNER_NAMES
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary, run_jobs, wilson_interval
from safe_vla_ros.sim.progress_bar import progress_bar
from safe_vla_ros.sim.tasks import TASKS
from safe_vla_ros.whole_files import write_json

TEST_SEED = 10_000
"""First seed of scenes that chose nothing: not used in collecting, training or calibrating."""

METHODS = ('none', 'safe', 'fastv', 'random')


def share(episodes: list[EpisodeSummary], part: str, whole: str) -> float:
    """Return the ratio of two fields summed over episodes; 0 when there are none."""
    total = sum(getattr(episode, whole) for episode in episodes)
    return sum(getattr(episode, part) for episode in episodes) / total if total else 0.0


def describe(episodes: list[EpisodeSummary], baseline: list[EpisodeSummary]) -> dict[str, Any]:
    """Return the figures of one method over some episodes, paired with unpruned ones."""
    solved = sum(episode.success for episode in episodes)
    low, high = wilson_interval(solved, len(episodes))
    before = {(e.task, e.seed): e.success for e in baseline}
    paired = [(before[e.task, e.seed], e.success) for e in episodes if (e.task, e.seed) in before]
    reasons: Counter[str] = Counter()
    for episode in episodes:
        reasons.update(episode.key_steps)
    return {
        'episodes': len(episodes),
        'successes': solved,
        'success_rate': solved / max(1, len(episodes)),
        'success_interval_95': [low, high],
        'lost_against_none': sum(was and not now for was, now in paired),
        'won_against_none': sum(now and not was for was, now in paired),
        'inferences': sum(e.inferences for e in episodes),
        'tokens_kept_share': share(episodes, 'tokens_kept', 'tokens_total'),
        'full_pass_share': share(episodes, 'full_passes', 'inferences'),
        'key_steps': dict(reasons),
        'decoder_macs_share': share(episodes, 'decoder_macs', 'decoder_macs_full'),
        'mean_duration_s': sum(e.duration_s for e in episodes) / max(1, len(episodes)),
        'starved_s': sum(e.starved_s for e in episodes),
    }


def evaluate(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run every method and return the report."""
    spec = read_spec(options.policy)
    results: dict[str, list[EpisodeSummary]] = {}
    started = time.perf_counter()
    for method in options.methods:
        settings = resolve_episode(
            spec,
            {
                'policy': options.policy,
                'dtype': options.dtype,
                'pruning.method': method,
                'pruning.keep_ratio': options.keep_ratio,
            },
        )
        pruning = settings.pruning
        if method == 'random' and 'safe' in results:
            budget = share(results['safe'], 'full_passes', 'inferences')
            pruning = replace(pruning, full_pass_share=budget)
        jobs = [
            # Own seed per episode: `random` must not repeat one sequence everywhere.
            EpisodeJob(
                options.policy,
                task,
                options.seed + index,
                replace(settings, pruning=replace(pruning, seed=options.seed + index)),
            )
            for index in range(options.episodes)
            for task in options.tasks
        ]
        results[method] = _run_with_progress(jobs, method, options.jobs, console)
    baseline = results.get('none', [])
    return {
        'policy': find_policy(options.policy).name,
        'dtype': options.dtype,
        'keep_ratio': options.keep_ratio,
        'pruning': dict(spec.pruning),
        'first_seed': options.seed,
        'episodes_per_task': options.episodes,
        'machine': f'{platform.machine()}, {os.cpu_count()} cores',
        'wall_s': time.perf_counter() - started,
        'methods': {
            method: {
                'all': describe(episodes, baseline),
                'tasks': {
                    task: describe([e for e in episodes if e.task == task], baseline)
                    for task in options.tasks
                },
            }
            for method, episodes in results.items()
        },
        'episodes': [
            {k: v for k, v in asdict(episode).items() if k != 'similarities'}
            for episodes in results.values()
            for episode in sorted(episodes, key=lambda e: (e.task, e.seed))
        ],
    }


def _run_with_progress(
    jobs: list[EpisodeJob], method: str, processes: int, console: Console
) -> list[EpisodeSummary]:
    episodes: list[EpisodeSummary] = []
    with progress_bar(console) as progress:
        bar = progress.add_task(method, total=len(jobs), note='')
        for episode in run_jobs(jobs, processes=processes):
            episodes.append(episode)
            solved = sum(e.success for e in episodes)
            progress.update(bar, advance=1, note=f'{100 * solved / len(episodes):.0f} % solved')
    return episodes


def make_rows(report: dict[str, Any], digits: int) -> list[list[str]]:
    """Lay the report out as cells: a row of titles, then a row per method.

    Args:
        report: Of ``evaluate``.
        digits: Decimals of what is not a task's success.
    """
    tasks = list(next(iter(report['methods'].values()))['tasks'])
    rows = [['method', *tasks, 'mean [95 %]', 'tokens kept', 'full passes', 'decoder MACs']]
    for method, figures in report['methods'].items():
        whole = figures['all']
        low, high = (f'{100 * end:.{digits}f}' for end in whole['success_interval_95'])
        shares = ('tokens_kept_share', 'full_pass_share', 'decoder_macs_share')
        rows.append(
            [
                method,
                *(f'{100 * figures["tasks"][task]["success_rate"]:.0f}' for task in tasks),
                f'{100 * whole["success_rate"]:.1f} [{low}, {high}]',
                *(f'{100 * whole[share]:.{digits}f} %' for share in shares),
            ]
        )
    return rows


def make_table(report: dict[str, Any]) -> Table:
    """Lay the report out for a terminal."""
    titles, *rows = make_rows(report, digits=0)
    table = Table(title=f'success in %, keep ratio {report["keep_ratio"]}')
    for title in titles:
        table.add_column(title, justify='left' if title == 'method' else 'right')
    for row in rows:
        table.add_row(*row)
    return table


def make_markdown(report: dict[str, Any]) -> str:
    """Lay the report out as a Markdown table, for the model card."""
    titles, *rows = make_rows(report, digits=1)
    lines = [titles, ['---', *['--:'] * (len(titles) - 1)], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.success',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--policy', default='mini_metaworld', help='policy: directory or bundled name'
    )
    parser.add_argument('--tasks', nargs='+', default=list(TASKS), choices=list(TASKS))
    parser.add_argument('--methods', nargs='+', default=list(METHODS), choices=list(PRUNER_NAMES))
    parser.add_argument('--episodes', type=int, default=50, help='episodes per task and method')
    parser.add_argument('--seed', type=int, default=TEST_SEED, help='seed of the first scene')
    parser.add_argument('--keep-ratio', type=float, default=0.25)
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='number of processes')
    parser.add_argument('--out', type=Path, help='write the report to this JSON file')
    parser.add_argument('--markdown', action='store_true', help='also print the table as Markdown')
    options = parser.parse_args(arguments)
    console = Console()
    try:
        report = evaluate(options, console)
    except SafeVlaError as error:
        parser.error(str(error))
    console.print(make_table(report))
    if options.markdown:
        print(make_markdown(report))
    if options.out:
        write_json(options.out, report)
        console.print(f'wrote {options.out}')


if __name__ == '__main__':
    main()
