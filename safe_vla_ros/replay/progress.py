"""How far a replay has come: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich import progress as bars
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console

LINE_INTERVAL_S = 10.0


class ProgressDisplay:
    """Shows bags done, bag time per second of waiting, and the time that is left."""

    def __init__(self, console: Console, bags: int) -> None:
        self._console = console
        self._bags = bags
        self._ended = 0
        self._done_s: dict[str, float] = {}
        self._shares: dict[str, float] = {}
        self._begin_s = self._line_s = time.monotonic()
        self._bar = bars.Progress(
            bars.TextColumn('{task.description}'),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            _RateColumn(),
            bars.TextColumn('left'),
            bars.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(f'0/{bags} bags', total=float(bags), rate=0.0)

    def __enter__(self) -> ProgressDisplay:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    def update(self, key: str, done_s: float, all_s: float) -> None:
        """Note how far a bag is."""
        self._done_s[key] = done_s
        self._shares[key] = min(1.0, done_s / all_s) if all_s > 0 else 0.0
        self._show()

    def finish(self, result: dict[str, Any]) -> None:
        """Note the end of a bag, and say so when something was wrong with it."""
        self._ended += 1
        self._shares[result['key']] = 1.0
        self._done_s[result['key']] = result.get('played_s', 0.0)
        if result['error']:
            self._console.print(Text(f'{result["status"]}: {result["error"]}', style='red'))
        self._show(line=True)

    def _show(self, *, line: bool = False) -> None:
        now_s = time.monotonic()
        done = sum(self._shares.values())
        rate = sum(self._done_s.values()) / max(now_s - self._begin_s, 1e-3)
        text = f'{self._ended}/{self._bags} bags'
        self._bar.update(self._task, completed=done, description=text, rate=rate)
        if self._console.is_terminal or not (line or now_s - self._line_s > LINE_INTERVAL_S):
            return
        self._line_s = now_s
        left_s = (now_s - self._begin_s) * (self._bags - done) / done if done else 0.0
        self._console.print(
            f'{text}, {100 * done / self._bags:.0f} %, {rate:.1f} bag seconds per second, '
            f'{left_s:.0f} s left'
        )


class _RateColumn(bars.ProgressColumn):
    def render(self, task: bars.Task) -> Text:
        return Text(f'{task.fields["rate"]:.1f} bag s/s')


def summary_table(summary: dict[str, Any]) -> Table:
    """Return the methods' main numbers as a table for the terminal."""
    table = Table(title='Methods')
    table.add_column('')
    methods = summary['methods']
    for method in methods:
        table.add_column(method, justify='right')

    def row(label: str, values: list[str]) -> None:
        table.add_row(label, *values)

    numbers = list(methods.values())
    row('inferences', [str(n['inferences']) for n in numbers])
    row('tokens computed', [_percent(n['kept_share']) for n in numbers])
    row('decoder MACs', [_percent(n['macs_share']) for n in numbers])
    row('key steps', [str(n['key_steps']) for n in numbers])
    row('mm per action to unpruned', [_scaled(n['difference']['position_m']) for n in numbers])
    row('latency p50, ms', [_plain(n['latency_ms']['p50']) for n in numbers])
    row('starved', [_percent(n['starved_share']) for n in numbers])
    return table


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.1f} %'


def _plain(value: float | None) -> str:
    return '-' if value is None else f'{value:.1f}'


def _scaled(summary: dict[str, float | None]) -> str:
    mean = summary['mean']
    return '-' if mean is None else f'{1000 * mean:.3f}'
