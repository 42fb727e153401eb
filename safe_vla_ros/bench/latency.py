"""Time inferences of a policy with several pruning methods on the same frames, alternating.

An unpruned episode of every task is recorded first. Then every method plans on its observations in
turn, A B C, B C A, C A B, each with its own memory, so full passes come as often as they do on a
robot, and what disturbs the machine meets all methods alike. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from safe_vla_ros.bench.machine import describe_machine
from safe_vla_ros.bench.recorded_observations import record_observations
from safe_vla_ros.bench.speed_report import BUSY_BELOW
from safe_vla_ros.bench.study_plan import UNPRUNED, Variant, expand
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import load_policy, read_spec
from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.tasks import TASKS
from safe_vla_ros.whole_files import write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from safe_vla_ros.types import Observation, Policy, PruningSettings

DRAWS = 2_000


@dataclass(frozen=True)
class Timing:
    """One timed inference.

    Attributes:
        label: The variant's.
        block: Which run of which episode it belongs to; a ratio's spread is over these.
        wall_ms, cpu_ms: Elapsed and processor time, milliseconds.
        pruned: What pruning did.
    """

    label: str
    block: tuple[int, int]
    wall_ms: float
    cpu_ms: float
    pruned: PrunedPass


def time_methods(
    policy: Policy,
    methods: Mapping[str, PruningSettings],
    episodes: Sequence[Sequence[Observation]],
    *,
    repeats: int,
) -> Iterator[Timing]:
    """Let every method plan on every observation; yields each inference.

    Args:
        policy: The policy, warm.
        methods: Settings by label.
        episodes: Observations of each episode.
        repeats: How often each episode is gone through.
    """
    labels = list(methods)
    turn = 0
    for repeat in range(repeats):
        for number, observations in enumerate(episodes):
            memories = {label: policy.new_episode() for label in labels}
            for observation in observations:
                turn += 1
                for place in range(len(labels)):
                    label = labels[(turn + place) % len(labels)]
                    cpu_s, wall_s = time.process_time(), time.perf_counter()
                    chunk = policy.infer(observation, memories[label], methods[label])
                    wall_ms = 1e3 * (time.perf_counter() - wall_s)
                    cpu_ms = 1e3 * (time.process_time() - cpu_s)
                    pruned = PrunedPass.of(chunk.record)
                    yield Timing(label, (repeat, number), wall_ms, cpu_ms, pruned)


def summarise(timings: Sequence[Timing], *, baseline: str, threads: int) -> dict[str, Any]:
    """Return means and their ratios; the 95 % interval of a ratio is a bootstrap over blocks.

    Args:
        timings: Of ``time_methods``.
        baseline: Label that the others are compared with.
        threads: CPU threads of the run.
    """
    by_label: dict[str, list[Timing]] = defaultdict(list)
    for timing in timings:
        by_label[timing.label].append(timing)
    blocks = sorted({timing.block for timing in timings})
    rows: dict[str, Any] = {}
    for label in sorted(by_label, key=lambda label: label != baseline):
        group = by_label[label]
        totals = PruningTotals(timing.pruned for timing in group)
        rows[label] = {
            'inferences': len(group),
            'mean_ms': fmean(timing.wall_ms for timing in group),
            'median_ms': median(timing.wall_ms for timing in group),
            'p95_ms': float(np.percentile([timing.wall_ms for timing in group], 95)),
            'mean_cpu_ms': fmean(timing.cpu_ms for timing in group),
            'full_pass_share': totals.full_passes / totals.passes,
            'tokens_computed_share': totals.kept_share,
            'decoder_macs_share': totals.decoder_macs / max(1, totals.decoder_macs_full),
        }
        ratio, low, high = _ratio(by_label[baseline], group, blocks)
        rows[label] |= {'times_as_fast': ratio, 'times_as_fast_95': [low, high]}
    busy = sum(t.cpu_ms for t in timings) / (threads * sum(t.wall_ms for t in timings))
    return {'baseline': baseline, 'methods': rows, 'processor_share': busy}


def _ratio(
    baseline: Sequence[Timing], group: Sequence[Timing], blocks: Sequence[tuple[int, int]]
) -> tuple[float, float, float]:
    sums = np.array(
        [
            [sum(t.wall_ms for t in timings if t.block == block) for block in blocks]
            for timings in (baseline, group)
        ]
    )
    random = np.random.default_rng(0)
    drawn = sums[:, random.integers(0, len(blocks), (DRAWS, len(blocks)))].sum(axis=2)
    low, high = np.percentile(drawn[0] / drawn[1], [2.5, 97.5])
    return float(sums[0].sum() / sums[1].sum()), float(low), float(high)


def markdown_table(report: Mapping[str, Any]) -> str:
    """Lay a report out as Markdown."""
    lines = [
        '| method | mean, ms | median, ms | 95 %, ms | times as fast [95 %] | full passes | MACs |',
        '|---|--:|--:|--:|--:|--:|--:|',
    ]
    for label, row in report['methods'].items():
        low, high = row['times_as_fast_95']
        lines.append(
            f'| `{label}` | {row["mean_ms"]:.1f} | {row["median_ms"]:.1f} | {row["p95_ms"]:.1f} | '
            f'{row["times_as_fast"]:.2f} [{low:.2f}, {high:.2f}] | '
            f'{100 * row["full_pass_share"]:.1f} % | {100 * row["decoder_macs_share"]:.1f} % |'
        )
    return '\n'.join(lines)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what the options ask for and return the report.

    Raises:
        SafeVlaError: A setting is not allowed, or the policy cannot be loaded.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = describe_machine(torch.device('cpu'))
    spec = read_spec(options.policy)
    values = {'policy': options.policy, 'dtype': options.dtype}
    variants = expand(options.methods, [options.keep_ratio])
    settings = {variant.label: _settings(variant, spec, values) for variant in variants}
    baseline = next((v.label for v in variants if v.method == UNPRUNED), None)
    if baseline is None:
        raise SafeVlaError(f'--methods needs {UNPRUNED}, which the others are compared with')
    policy = load_policy(options.policy, settings[baseline].policy)
    episodes = []
    for task in options.tasks:
        observed = record_observations(policy, settings[baseline], task)
        episodes.append(observed[:: options.stride])
        print(f'{task}: {len(episodes[-1])} observations', flush=True)
    methods = {label: resolved.pruning for label, resolved in settings.items()}
    for _ in time_methods(policy, methods, [episodes[0][:5]], repeats=1):
        pass  # warm-up
    timings = list(time_methods(policy, methods, episodes, repeats=options.repeats))
    return {
        'policy': spec.name,
        'dtype': options.dtype,
        'tasks': options.tasks,
        'repeats': options.repeats,
        'machine': machine,
        **summarise(timings, baseline=baseline, threads=torch.get_num_threads()),
    }


def _settings(variant: Variant, spec: Any, values: Mapping[str, Any]) -> Any:
    own = {**values, **variant.parameters, 'pruning.method': variant.method}
    return resolve_episode(spec, own)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.latency',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--policy', default='mini_libero', help='policy: directory or bundled name')
    add('--dtype', default='float32', choices=['float32', 'bfloat16'])
    add(
        '--methods',
        nargs='+',
        default=['none', 'safe', 'refresh'],
        metavar='VARIANT',
        help='as in bench.success (default: %(default)s)',
    )
    add('--keep-ratio', type=float, default=0.25)
    add('--tasks', nargs='+', default=list(TASKS), metavar='TASK')
    add('--repeats', type=int, default=3, help='times through every episode (default: 3)')
    add('--stride', type=int, default=1, help='use every n-th inference only; for a quick look')
    add('--threads', type=int, help="CPU threads (default: torch's own choice)")
    add('--json', type=Path, metavar='FILE', help='also write everything to this JSON file')
    options = parser.parse_args(arguments)
    try:
        report = measure(options)
    except SafeVlaError as error:
        print(f'ERROR {error}', file=sys.stderr)
        return 2
    print(markdown_table(report))
    if report['processor_share'] < BUSY_BELOW:
        print(
            f'WARNING the run had only {report["processor_share"]:.0%} of its threads: other '
            'programs, or work that is not parallel, are in these times'
        )
    if options.json:
        write_json(options.json, report)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
