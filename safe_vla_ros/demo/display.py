"""What the demo shows while it runs: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from safe_vla_ros.demo.results import EpisodeResult

REFRESH_HZ = 5.0
WIDTH = 120
"""Characters in a line where there is no terminal to ask."""


class Display:
    """Shows episodes as they go; used as a context manager.

    On a terminal the table is redrawn in place; in a file or pipe every episode becomes one line.
    """

    def __init__(self, tasks: Sequence[str], methods: Sequence[str], episodes: int) -> None:
        terminal = Console()
        self.console = terminal if terminal.is_terminal else Console(width=WIDTH)
        self._methods, self._episodes = methods, episodes
        self._cells: dict[str, dict[str, list[str]]] = {
            task: {m: [] for m in methods} for task in tasks
        }
        self._now: tuple[str, str, int, float] | None = None
        self._values: Mapping[str, str] = {}
        self._next_s = 0.0
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Display:
        """Begin."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the screen clean."""
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(text, highlight=False)

    def begin(self, method: str, task: str, seed: int) -> None:
        """Tell that an episode begins."""
        self._now = (method, task, seed, time.monotonic())
        self._values = {}
        self._next_s = 0.0

    def update(self, values: Mapping[str, str] | None) -> None:
        """Show the newest inference's values, a few times a second at most."""
        if values is not None:
            self._values = values
        now_s = time.monotonic()
        if self._live.is_started and now_s >= self._next_s:
            self._next_s = now_s + 1.0 / REFRESH_HZ
            self._live.update(self._table(), refresh=True)

    def end(self, result: EpisodeResult, numbers: Mapping[str, Any]) -> None:
        """Show what came out of an episode."""
        self._now = None
        mark = 'ok' if result.success else result.outcome
        wrong = ', wrong bowl' if result.wrong_bowl else ''
        self._cells[result.task][result.method].append(f'{mark} {result.elapsed_s:.1f} s{wrong}')
        if self._live.is_started:
            self._live.update(self._table(), refresh=True)
            return
        kept = numbers['tokens_kept_share']
        latency = numbers['latency_ms'].get('p50')
        self.say(
            f'{result.method:>6}  {result.task:<22} seed {result.seed}: {result.outcome:<8}'
            f'{result.elapsed_s:5.2f} s, {numbers["inferences"]:3d} inferences, '
            f'{numbers["key_steps"]:2d} key steps, '
            f'kept {"-" if kept is None else format(kept, ".0%")}, '
            f'{"-" if latency is None else format(latency, ".0f")} ms{wrong}'
        )

    def _table(self) -> Table:
        table = Table(title='Episodes', title_justify='left')
        table.add_column('task', min_width=22)
        for method in self._methods:
            table.add_column(f'pruning.method: {method}', min_width=26)
        for task, cells in self._cells.items():
            table.add_row(task, *(self._cell(task, m, cells[m]) for m in self._methods))
        table.caption, table.caption_justify = self._caption(), 'left'
        return table

    def _cell(self, task: str, method: str, done: Sequence[str]) -> str:
        if self._episodes == 1:
            parts = list(done)
        else:
            good = sum(entry.startswith('ok') for entry in done)
            parts = [f'{good}/{len(done)}'] if done else []
        if self._now and self._now[:2] == (method, task):
            parts.append(f'running {time.monotonic() - self._now[3]:.1f} s')
        return '  '.join(parts)

    def _caption(self) -> str:
        if not self._now or not self._values:
            return ''
        values = self._values
        return (
            f'seed {self._now[2]}   step {values.get("step", "-")}   '
            f'computed {values.get("tokens_computed", "-")}/{values.get("tokens_total", "-")}   '
            f'similarity {values.get("similarity", "-")} of {values.get("threshold", "-")}   '
            f'latency {values.get("latency_ms", "-")} ms'
        )
