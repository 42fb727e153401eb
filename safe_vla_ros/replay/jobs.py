"""Spreads bags over processes; what comes out does not depend on how many there are."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import cv2

from safe_vla_ros.garbage import free_memory
from safe_vla_ros.replay.bag_replay import BagTask, replay_bag
from safe_vla_ros.replay.errors import ReplayError
from safe_vla_ros.replay.replay_setup import ReplaySettings, Setup, load_setup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.queues import Queue
    from pathlib import Path

    Event = Any

REPORT_INTERVAL_S = 0.2


class Progress(Protocol):
    """Who is told how far a replay has come."""

    def update(self, key: str, done_s: float, all_s: float) -> None:
        """A bag has been played up to this many seconds."""

    def finish(self, result: dict[str, Any]) -> None:
        """A bag has ended."""


@dataclass(frozen=True)
class Shard:
    """Every n-th bag.

    Attributes:
        number: Which part, from 1.
        count: Number of parts.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``i/n``.

        Raises:
            ReplayError: Something else, or not 1 <= i <= n.
        """
        first, slash, second = text.partition('/')
        if slash and first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second):
            return cls(int(first), int(second))
        msg = f'--shard got {text!r}; allowed is i/n with 1 <= i <= n'
        raise ReplayError(msg)

    def __str__(self) -> str:
        return f'{self.number}/{self.count}'

    def of(self, tasks: Sequence[BagTask]) -> list[BagTask]:
        """Return this part of the bags."""
        return list(tasks[self.number - 1 :: self.count])


def replay_here(
    tasks: Sequence[BagTask],
    load: Callable[[], Setup],
    folder_of: Callable[[str], Path],
    progress: Progress,
    should_stop: Callable[[], bool],
) -> list[dict[str, Any]]:
    """Replay bags one after the other in this process.

    Args:
        tasks: The bags.
        load: Loads settings and policy; not called without a bag.
        folder_of: Folder of a bag's results by its key; made here.
        progress: Told about every bag.
        should_stop: Asked with every message; ends the bag and leaves out the rest.

    Returns:
        The results of the bags that were begun.
    """
    results: list[dict[str, Any]] = []
    setup: Setup | None = None
    for task in tasks:
        if should_stop():
            break
        setup = setup or load()
        results.append(_replay_one(task, setup, folder_of(task.key), progress, should_stop))
    return results


def replay_in_processes(
    tasks: Sequence[BagTask],
    settings: ReplaySettings,
    folder_of: Callable[[str], Path],
    progress: Progress,
    *,
    stop: Event,
    jobs: int,
    load: Callable[[ReplaySettings], Setup] = load_setup,
) -> list[dict[str, Any]]:
    """Replay bags in several processes, each with its own policy.

    Args:
        tasks: The bags.
        settings: What every process does with a bag.
        folder_of: Folder of a bag's results by its key.
        progress: Told about every bag.
        stop: Event of ``process_context``; when set, bags end and the rest is left out.
        jobs: Number of processes.
        load: Loads settings and policy, in every process that gets a bag.

    Returns:
        The results of the bags that were begun.

    Raises:
        SafeVlaError: The policy cannot be loaded.
    """
    context = process_context()
    told: Queue[tuple[str, float, float]] = context.Queue()
    results: list[dict[str, Any]] = []
    with ProcessPoolExecutor(jobs, context, _begin_process, (settings, load, stop, told)) as pool:
        with _signals_held_back():
            waiting = {pool.submit(_replay_in_worker, task, folder_of(task.key)) for task in tasks}
        try:
            while waiting:
                ended, waiting = wait(waiting, REPORT_INTERVAL_S, FIRST_COMPLETED)
                _pass_on(told, progress)
                for future in ended:
                    result = future.result()
                    if result is not None:
                        results.append(result)
                        progress.finish(result)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return results


def process_context() -> Any:
    """Return how processes are started: afresh, because torch does not survive forks."""
    return multiprocessing.get_context('spawn')


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: it goes to every process of a terminal.

    They inherit the mask; this process gets afterwards what came meanwhile.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _replay_one(
    task: BagTask,
    setup: Setup,
    folder: Path,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    told_s = 0.0

    def keep_going(done_s: float, all_s: float) -> bool:
        nonlocal told_s
        now_s = time.monotonic()
        if now_s - told_s > REPORT_INTERVAL_S:
            told_s = now_s
            progress.update(task.key, done_s, all_s)
        return not should_stop()

    folder.mkdir(parents=True)
    result = replay_bag(task, setup, folder, keep_going)
    free_memory()  # what one bag needed does not add to what the next one needs
    progress.finish(result)
    return result


def _pass_on(told: Queue[tuple[str, float, float]], progress: Progress) -> None:
    with suppress(queue.Empty):
        while True:
            progress.update(*told.get_nowait())


class _Worker:
    """What a process keeps between bags."""

    settings: ReplaySettings
    load: Callable[[ReplaySettings], Setup]
    stop: Event
    told: Queue[tuple[str, float, float]]
    setup: Setup | None = None

    def update(self, key: str, done_s: float, all_s: float) -> None:
        self.told.put((key, done_s, all_s))

    def finish(self, result: dict[str, Any]) -> None:
        """The parent hears of it from the result."""


_worker = _Worker()


def _begin_process(
    settings: ReplaySettings,
    load: Callable[[ReplaySettings], Setup],
    stop: Event,
    told: Queue[tuple[str, float, float]],
) -> None:
    cv2.setNumThreads(1)
    _worker.settings, _worker.stop, _worker.told = settings, stop, told
    _worker.load = load


def _replay_in_worker(task: BagTask, folder: Path) -> dict[str, Any] | None:
    if _worker.stop.is_set():
        return None
    if _worker.setup is None:
        _worker.setup = _worker.load(_worker.settings)
    parent = os.getppid()
    return _replay_one(
        task,
        _worker.setup,
        folder,
        _worker,
        # A parent that was killed cannot ask for an end any more.
        lambda: _worker.stop.is_set() or os.getppid() != parent,
    )
