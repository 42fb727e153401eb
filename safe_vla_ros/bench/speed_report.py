"""Statistics of a speed run, as JSON, as text and as the table of the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

STAGES = (
    'total',
    'prepare',
    'vision',
    'projector',
    'decode',
    'generate',
    'head',
    'expert',
    'pruning',
    'matching',
    'taps',
    'selection',
    'gathers',
    'context',
)
"""Stages in the order of a pass; ``pruning`` and what follows are part of ``decode``."""


BUSY_BELOW = 0.85
"""Share of its threads' time below which a CPU run was disturbed."""


@dataclass(frozen=True)
class Sample:
    """One timed inference.

    Attributes:
        arm: ``none`` or the method under test.
        kind: ``full`` for the unpruned arm, else ``key`` or ``pruned``.
        stage_ms: Milliseconds by stage.
        macs: Multiply-accumulates of the decoder.
        cpu_s: Processor time of the whole process, seconds.
        peak_gib: Highest memory during the step, GiB.
    """

    arm: str
    kind: str
    stage_ms: Mapping[str, float]
    macs: int
    cpu_s: float
    peak_gib: float | None

    @property
    def decoder_ms(self) -> float:
        """Time of the decoder, generated tokens included."""
        return self.stage_ms['decode'] + self.stage_ms.get('generate', 0.0)


def summarise(
    samples: Sequence[Sample], *, key_every: int, outside_macs: int, threads: int
) -> dict[str, object]:
    """Compare the method with the unpruned arm of the same run.

    Speed-ups are ratios of medians; the one with key steps weighs them at one in ``key_every``.

    Args:
        samples: Every timed step of both arms.
        key_every: Steps per key step; 0 for a method without key steps.
        outside_macs: Multiply-accumulates outside the decoder.
        threads: CPU threads of the run; ``processor_share`` says how much of them it really had.
    """
    kinds = {
        kind: [sample for sample in samples if sample.kind == kind]
        for kind in ('full', 'key', 'pruned')
    }
    share = 1 / key_every if key_every and kinds['key'] else 0.0
    result: dict[str, object] = {
        'stages': {kind: _stages(group) for kind, group in kinds.items() if group},
        'decoder_macs': {kind: group[0].macs for kind, group in kinds.items() if group},
        'outside_macs': outside_macs,
        'key_step_share': share,
        'peak_gib': {arm: _peak(samples, arm) for arm in dict.fromkeys(s.arm for s in samples)},
        'cpu_seconds_median': {
            kind: round(median(s.cpu_s for s in group), 3) for kind, group in kinds.items() if group
        },
    }
    if not kinds['full'] or not kinds['pruned']:
        return result
    full, pruned = kinds['full'], kinds['pruned']
    key = kinds['key'] or full

    def mixed(values: Mapping[str, float]) -> float:
        return share * values['key'] + (1 - share) * values['pruned']

    groups = {'full': full, 'key': key, 'pruned': pruned}
    decoder = {kind: median(s.decoder_ms for s in group) for kind, group in groups.items()}
    total = {kind: median(s.stage_ms['total'] for s in group) for kind, group in groups.items()}
    macs = {kind: fmean(s.macs for s in group) for kind, group in groups.items()}
    result['speed_up'] = {
        'decoder_pruned_step': decoder['full'] / decoder['pruned'],
        'decoder_with_key_steps': decoder['full'] / mixed(decoder),
        'end_to_end': total['full'] / mixed(total),
    }
    cpu = {kind: median(s.cpu_s for s in group) for kind, group in groups.items()}
    result['speed_up_by_processor_time'] = {'end_to_end': cpu['full'] / mixed(cpu)}
    result['processor_share'] = median(
        1e3 * s.cpu_s / (threads * s.stage_ms['total']) for s in samples
    )
    result['ceiling_by_macs'] = {
        'decoder_pruned_step': macs['full'] / macs['pruned'],
        'decoder_with_key_steps': macs['full'] / mixed(macs),
        'end_to_end': (outside_macs + macs['full']) / (outside_macs + mixed(macs)),
    }
    result['pruning_share_of_pruned_decode'] = median(
        s.stage_ms['pruning'] / s.decoder_ms for s in pruned
    )
    return result


def _stages(group: Iterable[Sample]) -> dict[str, dict[str, float]]:
    samples = list(group)
    stages = {}
    for name in STAGES:
        values = [sample.stage_ms[name] for sample in samples if name in sample.stage_ms]
        if values:
            stages[name] = {
                'median_ms': round(median(values), 3),
                'p95_ms': round(float(np.percentile(values, 95)), 3),
                'count': len(values),
            }
    return stages


def _peak(samples: Iterable[Sample], arm: str) -> float | None:
    peaks = [s.peak_gib for s in samples if s.arm == arm and s.peak_gib is not None]
    return round(max(peaks), 2) if peaks else None


def as_text(summary: Mapping[str, object]) -> str:
    """Lay a summary out for a terminal."""
    stages = summary['stages']
    assert isinstance(stages, dict)
    lines = [f'{summary.get("method", "")}:'] if 'method' in summary else []
    lines += [f'{"median (p95), ms":<18}' + ''.join(f'{kind:>24}' for kind in stages)]
    for name in STAGES:
        cells = [
            f'{stage[name]["median_ms"]:12.2f} ({stage[name]["p95_ms"]:8.2f})'
            if name in stage
            else ''
            for stage in stages.values()
        ]
        if any(cells):
            lines.append(f'{name:<18}' + ''.join(f'{cell:>24}' for cell in cells))
    macs = summary['decoder_macs']
    assert isinstance(macs, dict)
    lines.append(
        f'{"decoder, GMAC":<18}' + ''.join(f'{macs[kind] / 1e9:>24.1f}' for kind in stages)
    )
    lines.append(f'peak memory, GiB: {summary["peak_gib"]}')
    speed_up, ceiling = summary.get('speed_up'), summary.get('ceiling_by_macs')
    if isinstance(speed_up, dict) and isinstance(ceiling, dict):
        lines += [
            f'{name:<24} {value:5.2f}x   (ceiling by multiply-accumulates {ceiling[name]:.2f}x)'
            for name, value in speed_up.items()
        ]
        share = summary['pruning_share_of_pruned_decode']
        assert isinstance(share, float)
        lines.append(f'pruning is {share:.2%} of the decoder in a pruned step')
        had = summary['processor_share']
        assert isinstance(had, float)
        if summary.get('device', 'cpu') == 'cpu' and had < BUSY_BELOW:
            lines.append(
                f'WARNING the run had only {had:.0%} of its threads, so other programs are in '
                'these times; repeat it on an idle machine'
            )
    return '\n'.join(lines)


def markdown_table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Lay summaries of several shapes out side by side, as in the docs.

    Args:
        summaries: What ``bench.speed`` wrote; one with several methods gives a column for each.
    """
    summaries = [
        {**summary, **one} for summary in summaries for one in ({}, *summary.get('others', ()))
    ]

    def seconds(summary: Mapping[str, Any], kind: str) -> str:
        milliseconds = summary['stages'][kind]['total']['median_ms']
        return f'{milliseconds:.1f} ms' if milliseconds < 1e3 else f'{milliseconds / 1e3:.1f} s'

    def speed_up(summary: Mapping[str, Any], name: str) -> str:
        return f'**{summary["speed_up"][name]:.2f}x** ({summary["ceiling_by_macs"][name]:.2f}x)'

    def every(summary: Mapping[str, Any]) -> str:
        share = summary['key_step_share']
        return f'{1 / share:.0f}' if share else '-'

    rows: dict[str, Callable[[Mapping[str, Any]], str]] = {
        '': lambda s: f'`{s["shape"]}`',
        'number format, kernels': lambda s: f'{s["dtype"]}, {s["kernels"]}',
        'one inference unpruned, median': lambda s: seconds(s, 'full'),
        'one inference pruned, median': lambda s: seconds(s, 'pruned'),
        'decoder, pruned step': lambda s: speed_up(s, 'decoder_pruned_step'),
        'decoder with key steps': lambda s: speed_up(s, 'decoder_with_key_steps'),
        'image to action with key steps': lambda s: speed_up(s, 'end_to_end'),
        'steps per key step': every,
        "pruning's own share of a pruned decoder pass": lambda s: (
            f'{s["pruning_share_of_pruned_decode"]:.2%}'
        ),
        'peak memory, unpruned and pruned': lambda s: ' and '.join(
            f'{peak:.1f} GiB' for peak in s['peak_gib'].values()
        ),
    }
    if len({summary['method'] for summary in summaries}) > 1:
        rows = {'': rows.pop(''), 'method': lambda s: f'`{s["method"]}`', **rows}
    lines = [f'| {name} | {" | ".join(map(cell, summaries))} |' for name, cell in rows.items()]
    lines.insert(1, '|---|' + '--:|' * len(summaries))
    return '\n'.join(lines) + '\n'
