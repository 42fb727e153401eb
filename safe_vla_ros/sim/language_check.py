"""Check that the bundled policy listens: which bowl it lifts, by what it is told.

Every scene is run with either bowl asked for, from the benchmark's own initial states, which are
never trained on. The same initial states are run again with other sentences: the task in other
words, no place named (which bowl is then left open), and nothing at all.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import find_policy, read_spec
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary, run_jobs, wilson_interval
from safe_vla_ros.sim.lifting import ASKED, OTHER
from safe_vla_ros.sim.progress_bar import progress_bar
from safe_vla_ros.sim.sentences import phrasings
from safe_vla_ros.sim.tasks import NUM_INIT_STATES, SPATIAL, TASKS, get_task, split_name, task_names
from safe_vla_ros.whole_files import write_json

OFFICIAL, REPHRASED, NO_PLACE, BLANK = 'official', 'rephrased', 'no place', 'blank'
KINDS = (OFFICIAL, REPHRASED, NO_PLACE, BLANK)
PLACELESS = 'pick up the black bowl and place it on the plate'


def sentence_for(kind: str, task: str, number: int) -> str:
    """Return what is said.

    Args:
        kind: One of ``KINDS``.
        task: The task's name.
        number: Of the episode; the other words differ from one to the next.

    Raises:
        ValueError: There is no such kind.
    """
    official = get_task(task).sentence
    if kind == REPHRASED:
        others = phrasings(official)[1:]
        return others[number % len(others)]
    known = {OFFICIAL: official, NO_PLACE: PLACELESS, BLANK: ''}
    if kind not in known:
        msg = f'no sentence of the kind {kind!r}; allowed: {", ".join(KINDS)}'
        raise ValueError(msg)
    return known[kind]


def describe(episodes: list[EpisodeSummary]) -> dict[str, Any]:
    """Return counts of some episodes: solved, and which bowl was lifted first."""
    lifted = [episode.first_lifted for episode in episodes]
    solved = sum(episode.success for episode in episodes)
    return {
        'episodes': len(episodes),
        'successes': solved,
        'success_interval_95': list(wilson_interval(solved, len(episodes))),
        'asked_lifted_first': lifted.count(ASKED),
        'other_lifted_first': lifted.count(OTHER),
        'none_lifted': lifted.count(None),
    }


def followed_both(episodes: list[EpisodeSummary]) -> dict[str, dict[str, int]]:
    """Compare episodes that differ in their sentence alone.

    Args:
        episodes: Told the official sentences.

    Returns:
        By scene, of the initial states that were run with either bowl asked for: how many
        (``pairs``), in how many the sentence chose the bowl both times (``followed``), and in how
        many the same bowl was lifted both times (``same_bowl``).
    """
    by_scene: dict[str, dict[Any, dict[bool, str | None]]] = {}
    for episode in episodes:
        suite, scene, other = split_name(episode.task)
        states = by_scene.setdefault(f'{suite}/{scene}', {})
        states.setdefault((episode.seed, episode.init_state), {})[other] = episode.first_lifted
    result = {}
    for scene_name, states in sorted(by_scene.items()):
        pairs = [(lifted[False], lifted[True]) for lifted in states.values() if len(lifted) == 2]
        result[scene_name] = {
            'pairs': len(pairs),
            'followed': pairs.count((ASKED, ASKED)),
            'same_bowl': pairs.count((ASKED, OTHER)) + pairs.count((OTHER, ASKED)),
        }
    return result


def make_jobs(options: argparse.Namespace, kind: str) -> list[EpisodeJob]:
    """Return the episodes of one kind of sentence.

    A blank or placeless sentence says nothing about the bowl, so a scene is run once.
    """
    settings = resolve_episode(
        read_spec(options.policy), {'policy': options.policy, 'pruning.method': 'none'}
    )
    tasks = options.tasks
    if kind in (NO_PLACE, BLANK):
        scenes = {split_name(task)[:2]: task for task in reversed(tasks)}
        tasks = [task for task in tasks if task in scenes.values()]
    count = options.episodes if kind == OFFICIAL else options.others
    return [
        EpisodeJob(
            options.policy,
            task,
            0 if options.fresh is None else options.fresh + number,
            settings,
            init_state=number if options.fresh is None else None,
            told=sentence_for(kind, task, number),
        )
        for number in range(count)
        for task in tasks
    ]


def check(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the episodes and return the report."""
    report: dict[str, Any] = {'policy': find_policy(options.policy).name, 'kinds': {}}
    kept = []
    for kind in options.tell:
        jobs = make_jobs(options, kind)
        episodes: list[EpisodeSummary] = []
        with progress_bar(console) as progress:
            bar = progress.add_task(kind, total=len(jobs), note='')
            for episode in run_jobs(jobs, processes=options.jobs):
                episodes.append(episode)
                share = np.mean([e.success for e in episodes])
                progress.update(bar, advance=1, note=f'{100 * share:.0f} % solved')
        tasks = sorted({job.task for job in jobs})
        report['kinds'][kind] = {
            'all': describe(episodes),
            'tasks': {task: describe([e for e in episodes if e.task == task]) for task in tasks},
        }
        if kind == OFFICIAL:
            report['followed_both'] = followed_both(episodes)
        kept += [
            {'told': kind, **{k: v for k, v in asdict(e).items() if k != 'similarities'}}
            for e in sorted(episodes, key=lambda e: (e.task, e.seed, e.init_state or 0))
        ]
    return {**report, 'episodes': kept}


def make_markdown(report: dict[str, Any]) -> str:
    """Lay the report out as Markdown tables."""
    lines = [
        '| told | scene and bowl | success | 95 % | asked first | other first | none lifted |',
        '| --- | --- | --: | --: | --: | --: | --: |',
    ]
    for kind, figures in report['kinds'].items():
        for task, one in (*figures['tasks'].items(), ('all', figures['all'])):
            low, high = (round(100 * end) for end in one['success_interval_95'])
            lines.append(
                f'| {kind} | {task} | {one["successes"]}/{one["episodes"]} | {low}-{high} % '
                f'| {one["asked_lifted_first"]} | {one["other_lifted_first"]} '
                f'| {one["none_lifted"]} |'
            )
    if report.get('followed_both'):
        lines += [
            '',
            '| same state, either sentence | pairs | both followed | same bowl both times |',
            '| --- | --: | --: | --: |',
        ]
        lines += [
            f'| {scene} | {one["pairs"]} | {one["followed"]} | {one["same_bowl"]} |'
            for scene, one in report['followed_both'].items()
        ]
    return '\n'.join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.language_check',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--policy', default='mini_libero', help='policy: directory or bundled name')
    parser.add_argument(
        '--tasks', nargs='+', default=list(TASKS), choices=task_names(SPATIAL), metavar='TASK'
    )
    parser.add_argument('--tell', nargs='+', default=list(KINDS), choices=KINDS, metavar='KIND')
    parser.add_argument(
        '--episodes', type=int, default=NUM_INIT_STATES, help='episodes per task, own sentence'
    )
    parser.add_argument(
        '--others', type=int, default=20, help='episodes per task or scene, other sentences'
    )
    parser.add_argument(
        '--fresh', type=int, metavar='SEED', help='place objects by seed, from this one on'
    )
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='number of processes')
    parser.add_argument('--out', type=Path, help='write the report to this JSON file')
    options = parser.parse_args(arguments)
    if options.fresh is None and max(options.episodes, options.others) > NUM_INIT_STATES:
        parser.error(f'there are {NUM_INIT_STATES} initial states; use --fresh for more episodes')
    console = Console(stderr=True)
    try:
        report = check(options, console)
    except SafeVlaError as error:
        parser.error(str(error))
    print(make_markdown(report))
    if options.out:
        write_json(options.out, report)
        console.print(f'wrote {options.out}')


if __name__ == '__main__':
    main()
