"""The fault table as a document, with what a run has shown."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

from command_rules import STAMP_SLACK_S
from fault_stage import LIMITS, PATIENT
from fault_table import TABLE, Observed, Row

HEADINGS = (
    'fault',
    'while',
    'expected',
    'may be commanded',
    'observed',
    'time to rest (s)',
    'largest speed (m/s, rad/s)',
    'largest acceleration (m/s², rad/s²)',
)


def report(results: Mapping[str, Observed | str]) -> str:
    """Return the document; a row without a result was not run."""
    sections = [f'## {title}\n\n{_table(rows, results)}' for title, rows in TABLE.items()]
    return '\n\n'.join([_introduction(), *sections]) + '\n'


def _introduction() -> str:
    return f"""# What the node does when something goes wrong

Made by `make faults` from the rows of `test/faults/fault_table.py`; do not edit it. The run was on
{_machine()}.

Every row runs the node with a fake policy in a process of its own, and a robot that talks to it
over DDS. A recorder judges every command of every row: speed and acceleration within the limits
({_given(LIMITS)}),
zero at the end of every halt, then silence, nothing while the node is not active. The acceleration
is the change between two commands over the time between their stamps, at least one control period;
a stamp is taken up to {STAMP_SLACK_S * 1000:g} ms later than the tick, so single values may be a
little above the limit. After a stall the robot counts as stopped by itself.

The system clock of the machine is never set: the node's own readings of it are shifted
(`test/ros/shifted_clock.py`), and the robot's stamps with them.

Rows ran with the limits above and
{_given({name: value for name, value in PATIENT.items() if name not in LIMITS})},
but for those of a lost input (`observation_timeout_s` 0.7) and of a slow policy
(`starvation_grace_s` 0.1).
Where motion goes on, the reason is what a service, the log or `/diagnostics` said.
*Time to rest* is the time from the fault to the first zero. For SIGKILL nothing of this holds: the
robot must stop by itself when commands end."""


def _given(values: Mapping[str, float]) -> str:
    return ', '.join(f'`{name}` {value:g}' for name, value in values.items())


def _machine() -> str:
    found = re.search(r'model name\s*: (.+)', Path('/proc/cpuinfo').read_text(encoding='utf-8'))
    processor = found.group(1) if found else platform.machine()
    middleware = os.environ.get('RMW_IMPLEMENTATION', 'the default middleware')
    return (
        f'{os.cpu_count()} cores of an {processor}, {platform.system()}, '
        f'Python {platform.python_version()}, {middleware}'
    )


def _table(rows: list[Row], results: Mapping[str, Observed | str]) -> str:
    lines = [HEADINGS, ['---'] * len(HEADINGS)]
    lines += [_line(row, results.get(row.fault, 'not run')) for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _line(row: Row, result: Observed | str) -> list[str]:
    cells = [row.fault, row.situation.value, _said(row.state, row.reason), row.commands.value]
    if isinstance(result, str):
        return [*cells, result, '', '', '']
    largest = result.largest
    observed = _said(result.state, result.reason)
    return [
        *cells,
        observed.replace('\n', ' ').replace('|', '/'),
        '' if result.rest_s is None else f'{result.rest_s:.2f}',
        f'{largest.linear_speed:.3f}, {largest.angular_speed:.3f}',
        f'{largest.linear_accel:.2f}, {largest.angular_accel:.2f}',
    ]


def _said(state: str, reason: str) -> str:
    return ': '.join(part for part in (f'`{state}`' if state else '', reason) if part)
