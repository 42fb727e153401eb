"""The folder of results: written beside its place, moved there whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_vla_ros.bounded_files import read_json
from safe_vla_ros.replay.bag_replay import ROWS
from safe_vla_ros.replay.errors import ReplayError
from safe_vla_ros.replay.replay_summary import make_summary
from safe_vla_ros.replay.report import write_report
from safe_vla_ros.replay.rows import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

SUMMARY, REPORT, BAGS = 'summary.json', 'report.html', 'bags'


class ResultFolder:
    """A folder that appears under its name only when everything in it is written.

    Until then it is ``.<name>.unfinished-<process>`` beside it; an error removes that, and a killed
    process leaves it, without a ``summary.json``.

    Attributes:
        path: Where the results will be.
        work: Where they are being written.
    """

    def __init__(self, path: Path, *, overwrite: bool, sources: Sequence[Path] = ()) -> None:
        """Name the folder; nothing is written before it is entered.

        Args:
            path: Where the results will be.
            overwrite: Whether an older result there may be replaced.
            sources: What is read, and therefore neither written into nor replaced.
        """
        self.path = Path(os.path.abspath(path))  # noqa: PTH100  (links keep their names)
        self.work = self.path.parent / f'.{self.path.name}.unfinished-{os.getpid()}'
        self._overwrite = overwrite
        self._sources = sources

    def __enter__(self) -> ResultFolder:
        """Make the folder to write in.

        Raises:
            ReplayError: The place is taken, cannot be written to, or lies in what is read.
        """
        self._check_apart()
        if os.path.lexists(self.path):
            self._check_replaceable()
        try:
            (self.work / BAGS).mkdir(parents=True)
        except OSError as error:
            msg = f'results cannot be written to {self.path}: {error}'
            raise ReplayError(msg) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not published.

        Raises:
            ReplayError: The system took no more of it, as on a full disk.
        """
        shutil.rmtree(self.work, ignore_errors=True)
        if isinstance(error, OSError):
            msg = f'results cannot be written to {self.path}, nothing of them is kept: {error}'
            raise ReplayError(msg) from error

    def bag(self, key: str) -> Path:
        """Return the folder of one bag's results; not made yet."""
        return self.work / BAGS / key

    def publish(
        self,
        header: Mapping[str, Any],
        bags: Sequence[str],
        results: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Join the bags' results, write the report, and move everything to its place.

        Args:
            header: What was asked.
            bags: Every bag that was to be replayed.
            results: ``result.json`` of those that were.

        Returns:
            What ``summary.json`` holds.
        """
        ordered = sorted(results, key=lambda result: int(result['index']))
        folders = {result['key']: self.bag(result['key']) for result in ordered}
        with (self.work / ROWS).open('wb') as target:
            for folder in folders.values():
                if (folder / ROWS).exists():
                    with (folder / ROWS).open('rb') as source:
                        shutil.copyfileobj(source, target)
        summary = make_summary(header, bags, ordered)
        write_report(self.work / REPORT, summary, ordered, folders)
        text = json.dumps(clean(summary), indent=1)
        (self.work / SUMMARY).write_text(text + '\n', encoding='utf-8')
        self._move()
        return summary

    def _check_apart(self) -> None:
        path = self.path.resolve()
        for source in self._sources:
            read = source.resolve()
            if path == read or read in path.parents or path in read.parents:
                msg = f'results cannot be written to {self.path}: {source} is read; choose another'
                raise ReplayError(f'{msg} --out')

    def _check_replaceable(self) -> None:
        if not self._overwrite:
            msg = f'{self.path} exists; choose another folder with --out, or give --overwrite'
            raise ReplayError(msg)
        is_result = (self.path / SUMMARY).exists()
        if not is_result and (not self.path.is_dir() or any(self.path.iterdir())):
            msg = f'{self.path} is no replay result, so it is not overwritten; choose another --out'
            raise ReplayError(msg)

    def _move(self) -> None:
        replaced = self.path.with_name(f'.{self.path.name}.replaced-{os.getpid()}')
        try:
            if self.path.exists():
                self.path.rename(replaced)
            self.work.rename(self.path)
        except OSError as error:
            if replaced.exists() and not self.path.exists():
                replaced.rename(self.path)
            msg = f'results cannot be moved to {self.path}: {error}'
            raise ReplayError(msg) from error
        shutil.rmtree(replaced, ignore_errors=True)


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished result.

    Raises:
        ReplayError: The folder is none.
    """
    try:
        summary = read_json(folder / SUMMARY, ReplayError)
    except ReplayError as error:
        msg = f'{folder} is not a replay result: {error}'
        raise ReplayError(msg) from error
    if not isinstance(summary, dict) or 'format' not in summary:
        msg = f'{folder} is not a replay result: its {SUMMARY} holds no format'
        raise ReplayError(msg)
    return summary
