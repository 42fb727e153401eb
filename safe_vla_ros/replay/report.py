"""The report: one HTML file with everything in it, that any browser opens from disk."""

from __future__ import annotations

import base64
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from safe_vla_ros.replay.bag_replay import COMPLETE, FILMSTRIP, ROWS
from safe_vla_ros.replay.plots import (
    COLOURS,
    DASHES,
    Curve,
    Mark,
    as_steps,
    line_plot,
    stacked_bars,
    state_band,
    state_legend,
)
from safe_vla_ros.replay.report_style import STYLE
from safe_vla_ros.replay.report_tables import bag_table, method_table, settings_table
from safe_vla_ros.replay.traces import read_traces
from safe_vla_ros.types import PRUNING_STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from safe_vla_ros.replay.traces import MethodTraces

MOST_DETAILED_BAGS = 8
MOST_NOTES = 20


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    folder_of: Mapping[str, Path],
) -> None:
    """Write ``report.html``.

    Args:
        path: The file.
        summary: What ``summary.json`` holds.
        results: ``result.json`` of the bags, in order.
        folder_of: Folder of each bag's results by its key.
    """
    with path.open('w', encoding='utf-8') as file:
        for part in _page(summary, results, folder_of):
            file.write(part)


def _page(
    summary: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    folder_of: Mapping[str, Path],
) -> Iterator[str]:
    settings = summary['settings']
    title = f'Replay of {len(results)} bag{"s" * (len(results) != 1)}'
    yield '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    yield f'<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>'
    yield f'<h1>{escape(title)}</h1>'
    yield _status(summary)
    yield (
        f'<p>Policy <b>{escape(str(settings["policy"]))}</b>, latency '
        f'<b>{escape(settings["latency"])}</b>, methods '
        f"<b>{escape(', '.join(settings['methods']))}</b> (the first is the robot's own).</p>"
    )
    yield '<h2>Methods</h2>' + method_table(summary['methods'])
    stages = {method: _stages(numbers) for method, numbers in summary['methods'].items()}
    if any(stages.values()):
        yield '<h3>Milliseconds per inference, by stage, on this machine</h3>'
        yield stacked_bars(stages, unit='ms')
    yield '<h2>Bags</h2>' + bag_table(summary['bags'])
    detailed = [result for result in results if result['methods']][:MOST_DETAILED_BAGS]
    for result in detailed:
        yield from _bag(result, settings, folder_of[result['key']])
    if len(detailed) < len(results):
        yield (
            f'<p class="none">Curves are drawn for the first {len(detailed)} bags that were '
            'replayed; every bag has its own folder under bags/.</p>'
        )
    yield '<h2>Settings</h2>' + settings_table(settings)
    yield '</main></body></html>\n'


def _stages(numbers: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean milliseconds of stages that do not overlap: pruning is a part of decode."""
    means = {stage: values['mean'] for stage, values in numbers['stage_ms'].items()}
    stages = {stage: ms for stage, ms in means.items() if stage not in PRUNING_STAGES}
    if 'decode' in stages and 'pruning' in stages:
        stages['decode'] -= stages['pruning']
    return stages


def _status(summary: Mapping[str, Any]) -> str:
    if summary['complete']:
        return '<p class="good">Complete.</p>'
    reasons = '; '.join(summary['why_partial'])
    return f'<p class="bad">Partial result: {escape(reasons)}.</p>'


def _bag(result: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> Iterator[str]:
    duration_s = max(result['played_s'], 1e-9)
    yield f'<h2 class="bag">{escape(result["bag"])}</h2>'
    if result['status'] != COMPLETE:
        text = result['status'] + (f': {result["error"]}' if result['error'] else '')
        yield f'<p class="bad">{escape(text)}</p>'
    yield _remarks(result)
    traces = read_traces(
        folder / ROWS,
        duration_s,
        executed=settings['execute_steps'],
        period_s=settings['action_period_s'],
    )
    methods = [method for method in result['methods'] if method in traces]
    yield from _similarity(methods, traces, duration_s)
    yield '<h3>Share of visual tokens computed</h3>'
    yield line_plot(
        [replace(c, points=as_steps(c.points)) for c in _curves(methods, traces, 'kept_share')],
        duration_s=duration_s,
        label='kept share',
        limits=(0.0, 1.05),
    )
    if any(traces[method].points('difference_mm') for method in methods):
        yield '<h3>Difference of the actions to the unpruned ones of the same observation</h3>'
        yield line_plot(
            _curves(methods, traces, 'difference_mm'),
            duration_s=duration_s,
            label='mm per action',
        )
    yield from _actions(methods, traces, duration_s)
    yield '<h3>Latency and seams</h3>'
    yield line_plot(
        _curves(methods, traces, 'latency_ms'), duration_s=duration_s, label='latency, ms'
    )
    yield line_plot(
        _curves(methods, traces, 'seam_jump_m_s'),
        duration_s=duration_s,
        label='step of the planned velocity where chunks meet, m/s',
    )
    yield from _states(methods, result, duration_s)
    for method in methods:
        yield from _filmstrip(method, result['methods'][method]['filmstrip'], folder)


def _states(methods: Sequence[str], result: Mapping[str, Any], duration_s: float) -> Iterator[str]:
    yield '<h3>States</h3>'
    seen: dict[str, None] = {}
    for method in methods:
        changes = [
            (change['time_s'], change['name'], change['reason'])
            for change in result['methods'][method]['state_changes']
        ]
        seen.update(dict.fromkeys(name for _, name, _ in changes))
        yield state_band(changes, duration_s=duration_s, name=method)
    yield state_legend(list(seen))


def _remarks(result: Mapping[str, Any]) -> str:
    items = [escape(note) for note in result['notes'][:MOST_NOTES]]
    items += [
        f'{number} messages: {escape(reason)}' for reason, number in result['skipped'].items()
    ]
    return f'<ul>{"".join(f"<li>{item}</li>" for item in items)}</ul>' if items else ''


def _similarity(
    methods: Sequence[str], traces: Mapping[str, MethodTraces], duration_s: float
) -> Iterator[str]:
    for method in methods:
        similarity, residual = (traces[method].points(n) for n in ('similarity', 'residual'))
        marks = [
            Mark(time_s, f'{time_s:.2f} s: {reason}')
            for (_, reason), time_s in sorted(traces[method].key_steps.items())
        ]
        if not similarity and not residual and not marks:
            continue
        if residual:
            title, label = 'What would stay stale', 'residual and tau'
            measured, limit = Curve('residual', residual, COLOURS[0]), ('tau', 'max_staleness')
        else:
            title, label = 'Similarity of saliency and forecast', 'kappa and gamma'
            measured, limit = Curve('kappa', similarity, COLOURS[0]), ('gamma', 'threshold')
        yield f'<h3>{title}: {escape(method)}</h3>'
        yield line_plot(
            [measured, Curve(limit[0], traces[method].points(limit[1]), COLOURS[1], '6 3')],
            duration_s=duration_s,
            label=label,
            marks=marks,
        )


def _actions(
    methods: Sequence[str], traces: Mapping[str, MethodTraces], duration_s: float
) -> Iterator[str]:
    yield '<h3>Planned motion (mean over the actions of a chunk that are played)</h3>'
    for group, unit in (('velocity', 'm/s'), ('turning', 'rad/s')):
        for axis in 'xyz':
            curves = _curves(methods, traces, f'{group}_{axis}')
            if any(value for curve in curves for _, value in curve.points):
                yield line_plot(
                    curves, duration_s=duration_s, label=f'{group} {axis}, {unit}', height=120
                )
    yield line_plot(
        _curves(methods, traces, 'gripper'),
        duration_s=duration_s,
        label='gripper, 0 closed to 1 open',
        height=110,
        limits=(-0.05, 1.05),
    )


def _curves(methods: Sequence[str], traces: Mapping[str, MethodTraces], name: str) -> list[Curve]:
    return [
        Curve(
            method,
            traces[method].points(name),
            COLOURS[index % len(COLOURS)],
            DASHES[index % len(DASHES)],
        )
        for index, method in enumerate(methods)
    ]


def _filmstrip(method: str, frames: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[str]:
    if not frames:
        return
    yield f'<h3>Key steps: {escape(method)}</h3><div class="strip">'
    for frame in frames:
        data = base64.b64encode((folder / FILMSTRIP / frame['file']).read_bytes()).decode()
        kappa, residual = frame['similarity'], frame['residual']
        caption = (
            f'{frame["time_s"]:.2f} s, episode {frame["episode"]} step {frame["step"]}: '
            f'{frame["reason"]}'
            + ('' if kappa is None else f', kappa {kappa:.2f}')
            + ('' if residual is None else f', residual {residual:.2f}')
        )
        yield (
            f'<figure><img src="data:image/jpeg;base64,{data}" alt="overlay at a key step">'
            f'<figcaption>{escape(caption)}</figcaption></figure>'
        )
    yield '</div>'
