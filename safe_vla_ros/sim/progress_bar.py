"""The progress bar of everything that collects, trains and evaluates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from rich.console import Console


def progress_bar(console: Console | None = None) -> Progress:
    """Return a bar; its tasks have a field ``note``, shown beside the count."""
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[note]}'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
