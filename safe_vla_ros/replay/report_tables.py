"""Tables of the report."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST_ROWS = 500
DASH = '-'


def _number(digits: int, factor: float = 1.0) -> Callable[[Any], str]:
    return lambda value: DASH if value is None else f'{factor * value:.{digits}f}'


def _percent(value: Any) -> str:
    return DASH if value is None else f'{100 * value:.1f} %'


def _if_any(value: Any) -> str:
    return str(value) if value else DASH


def _tally(value: Mapping[str, float]) -> str:
    return ', '.join(f'{name} {number:g}' for name, number in value.items()) or DASH


METHOD_ROWS: Sequence[tuple[str, str, Callable[[Any], str]]] = (
    ('Pruning', '', str),
    ('inferences', 'inferences', str),
    ('visual tokens computed, all passes', 'kept_share', _percent),
    ('decoder multiply-accumulates, of a full pass', 'macs_share', _percent),
    ('decoder multiply-accumulates per inference, G', 'decoder_gmacs', _number(3)),
    ('key steps', 'key_steps', str),
    ('key steps, share', 'key_step_share', _percent),
    ('reasons', 'key_step_reasons', _tally),
    ('kappa, median', 'similarity.p50', _number(3)),
    ('kappa, lowest', 'similarity.min', _number(3)),
    ('Actions, against the unpruned ones of the same observation', '', str),
    ('position, mean, mm per action', 'difference.position_m.mean', _number(3, 1000)),
    ('position, 95 %, mm per action', 'difference.position_m.p95', _number(3, 1000)),
    ('position, of the unpruned path, mean', 'difference.relative.mean', _percent),
    ('rotation, mean, mrad per action', 'difference.rotation_rad.mean', _number(2, 1000)),
    ('gripper, mean', 'difference.gripper.mean', _number(3)),
    ('Commands, against the recorded ones', '', str),
    ('ticks compared: the recorded arm moves', 'recorded.ticks', _if_any),
    ('ticks in which only the recorded arm moves', 'recorded.only_recorded_ticks', _if_any),
    ('ticks in which only the replayed one moves', 'recorded.only_replayed_ticks', _if_any),
    ('linear, RMS, mm/s', 'recorded.linear_m_s_rms', _number(1, 1000)),
    ('angular, RMS, mrad/s', 'recorded.angular_rad_s_rms', _number(1, 1000)),
    ('direction, mean cosine', 'recorded.direction_cosine', _number(3)),
    ('gripper, mean', 'recorded.gripper', _number(3)),
    ('Playback', '', str),
    ('latency, median, ms', 'latency_ms.p50', _number(1)),
    ('latency, 95 %, ms', 'latency_ms.p95', _number(1)),
    ('age of the observation at use, median, ms', 'observation_age_s.p50', _number(1, 1000)),
    ('actions skipped per chunk, mean', 'skipped_actions.mean', _number(2)),
    ('seam, 95 %, mm/s', 'seam_jump_m_s.p95', _number(1, 1000)),
    ('seam, largest, mm/s', 'seam_jump_m_s.max', _number(1, 1000)),
    ('acceleration, RMS, m/s²', 'acceleration_m_s2_rms', _number(3)),
    ('jerk, RMS, m/s³', 'jerk_m_s3_rms', _number(1)),
    ('reversals per second of motion', 'reversals_per_s', _number(2)),
    ('starved, of the ticks with a plan', 'starved_share', _percent),
    ('halts', 'halts', _tally),
    ('errors of the policy', 'errors', str),
)
"""Label, place in a method's numbers and format; a label without a place begins a group."""


def method_table(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """Compare the methods, one column each."""
    head = ''.join(f'<th>{escape(method)}</th>' for method in methods)
    rows = [f'<tr><th></th>{head}</tr>']
    group = ''
    for label, place, write in METHOD_ROWS:
        if not place:
            group = f'<tr class="group"><td colspan="{len(methods) + 1}">{label}</td></tr>'
            continue
        cells = [write(_at(numbers, place)) for numbers in methods.values()]
        if any(cell != DASH for cell in cells):
            columns = ''.join(f'<td>{escape(cell)}</td>' for cell in cells)
            rows.append(f'{group}<tr><td>{escape(label)}</td>{columns}</tr>')
            group = ''
    return f'<table>{"".join(rows)}</table>'


def bag_table(bags: Sequence[Mapping[str, Any]]) -> str:
    """Say what became of every bag."""
    columns = ('bag', 'status', 'seconds', 'messages', 'rows', 'skipped')
    head = ''.join(f'<th>{column}</th>' for column in columns)
    rows = [f'<tr>{head}<th class="text">remark</th></tr>']
    for bag in bags[:MOST_ROWS]:
        style = 'good' if bag['status'] == 'complete' else 'bad'
        remark = bag['error'] or '; '.join((bag['notes'] or [])[:2])
        skipped = sum((bag['skipped'] or {}).values())
        rows.append(
            f'<tr><td class="text">{escape(bag["bag"])}</td>'
            f'<td class="{style}">{escape(bag["status"])}</td>'
            f'<td>{_number(1)(bag["played_s"])}</td><td>{bag["messages"] or 0}</td>'
            f'<td>{bag["rows"] or 0}</td><td>{skipped}</td>'
            f'<td class="text">{escape(remark)}</td></tr>'
        )
    more = len(bags) - MOST_ROWS
    tail = f'<p class="none">and {more} more, see summary.json</p>' if more > 0 else ''
    return f'<table>{"".join(rows)}</table>{tail}'


def settings_table(settings: Mapping[str, Any]) -> str:
    """List what was asked, so that it can be repeated."""
    rows = []
    for name, value in settings.items():
        if value == {}:
            continue
        if isinstance(value, dict):
            rows.append(f'<tr class="group"><td colspan="2">{escape(name)}</td></tr>')
            rows += [
                f'<tr><td>{escape(str(key))}</td><td class="text">'
                f'{escape(json.dumps(element, ensure_ascii=False))}</td></tr>'
                for key, element in value.items()
            ]
        else:
            text = json.dumps(value, ensure_ascii=False)
            rows.append(f'<tr><td>{escape(name)}</td><td class="text">{escape(text)}</td></tr>')
    return f'<table>{"".join(rows)}</table>'


def _at(numbers: Mapping[str, Any], place: str) -> Any:
    value: Any = numbers
    for key in place.split('.'):
        value = value[key]
    return value
