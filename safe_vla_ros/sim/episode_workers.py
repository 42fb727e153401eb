"""Processes that run jobs one by one and stay warm: each keeps what the last job has loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from safe_vla_ros.errors import SafeVlaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

LARGEST_WORKER_GIB = 3.0
"""A worker that holds more after a job is replaced by a new one."""

USUAL_WORKER_GIB = 2.3
"""What a worker with a scene, its textures and the bundled policy needs."""

TRIES = 2
"""How often a job is tried when its process ends under it."""

MOST_FAILURES = 10
"""From so many failed jobs on something is wrong with all of them."""

_GIB = 2**30
Job = TypeVar('Job')
Answer = TypeVar('Answer')


def default_processes() -> int:
    """Return one per core this process may use, but no more than fit into free memory."""
    cores = len(os.sched_getaffinity(0))
    free = _free_memory_gib()
    return cores if free is None else max(1, min(cores, int(free / USUAL_WORKER_GIB)))


def run_warm(
    jobs: Sequence[Job],
    work: Callable[[Job], Answer],
    *,
    processes: int,
    place: Callable[[Job], object],
    window: int = 200,
    largest_gib: float = LARGEST_WORKER_GIB,
) -> Iterator[tuple[Job, Answer]]:
    """Run jobs in processes of one thread each; yields each with its answer as it ends.

    Jobs run about in order, but a worker goes on with a job of the place it is at, if there is one
    among the next ``window``. A job that fails does not keep the others from running. Interrupting
    or closing the iterator ends the workers at once.

    Args:
        jobs: Each can be pickled.
        work: Runs one; a module's function.
        processes: Number of workers.
        place: Tells what a job needs loaded.
        window: How far ahead a worker may look.
        largest_gib: A worker that holds more after a job is replaced.

    Raises:
        SafeVlaError: At the end, if a job raised an error or its process ended twice under it; at
            once, if ``MOST_FAILURES`` did.
    """
    pool = _Pool(jobs, work, place, window)
    try:
        while pool.is_busy:
            pool.employ(processes)
            for worker in pool.wait():
                yield from pool.take_in(worker, largest_gib)
        if pool.failures:
            raise pool.error()
    finally:
        pool.end()


def use_one_thread() -> None:
    """Let this worker process compute with one thread, whether torch is loaded already or not."""
    os.environ['OMP_NUM_THREADS'] = '1'
    torch = sys.modules.get('torch')
    if torch is not None:
        torch.set_num_threads(1)


@dataclass
class _Waiting(Generic[Job]):
    job: Job
    tries: int = 0


@dataclass(frozen=True)
class _Outcome:
    answer: object = None
    error: str = ''
    died: bool = False


class _Pool(Generic[Job, Answer]):
    """What waits, who works, and what failed."""

    def __init__(
        self,
        jobs: Sequence[Job],
        work: Callable[[Job], Answer],
        place: Callable[[Job], object],
        window: int,
    ) -> None:
        self._work, self._place, self._window = work, place, window
        self._waiting = [_Waiting(job) for job in jobs]
        self._workers: list[_Worker[Job, Answer]] = []
        self.failures: list[str] = []

    @property
    def is_busy(self) -> bool:
        return bool(self._waiting) or any(worker.current for worker in self._workers)

    def employ(self, processes: int) -> None:
        """Give every worker a job, as long as there are any."""
        self._workers = [worker for worker in self._workers if worker.alive]
        while self._waiting:
            idle = next((worker for worker in self._workers if worker.current is None), None)
            if idle is None:
                if len(self._workers) == processes:
                    return
                idle = _Worker(self._work)
                self._workers.append(idle)
            waiting = self._take(idle.place)
            idle.begin(waiting, self._place(waiting.job))

    def wait(self) -> list[_Worker[Job, Answer]]:
        """Return workers that have answered or died, at least one."""
        busy = {worker.connection: worker for worker in self._workers if worker.current is not None}
        return [busy[connection] for connection in wait(list(busy)) if connection in busy]

    def take_in(
        self, worker: _Worker[Job, Answer], largest_gib: float
    ) -> Iterator[tuple[Job, Answer]]:
        """Yield a worker's answer, or put its job back, or note its failure."""
        done = worker.current
        assert done is not None
        outcome = worker.finish(largest_gib)
        if outcome.died and done.tries < TRIES:
            self._waiting.insert(0, done)
        elif outcome.error:
            self.failures.append(f'{done.job}\n{outcome.error}')
            if len(self.failures) == MOST_FAILURES:
                raise self.error()
        else:
            yield done.job, cast('Answer', outcome.answer)

    def error(self) -> SafeVlaError:
        return SafeVlaError(f'{len(self.failures)} jobs failed; the first was {self.failures[0]}')

    def end(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _take(self, at: object) -> _Waiting[Job]:
        for index, one in enumerate(self._waiting[: self._window]):
            if self._place(one.job) == at:
                return self._waiting.pop(index)
        return self._waiting.pop(0)


class _Worker(Generic[Job, Answer]):
    """One process, from this side."""

    def __init__(self, work: Callable[[Job], Answer]) -> None:
        context = multiprocessing.get_context('spawn')
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, work), daemon=True)
        with _deaf_to_interrupts():
            self._process.start()
        there.close()
        self.current: _Waiting[Job] | None = None
        self.place: object = None
        self.alive = True

    @property
    def connection(self) -> Connection:
        return self._here

    def begin(self, waiting: _Waiting[Job], place: object) -> None:
        self.current, self.place = waiting, place
        waiting.tries += 1
        with suppress(BrokenPipeError):  # then ``finish`` finds the end of the file
            self._here.send(waiting.job)

    def finish(self, largest_gib: float) -> _Outcome:
        """Take the answer; a worker that has died, or holds too much, is not used again."""
        self.current = None
        try:
            answer, error, resident_gib = self._here.recv()
        except (EOFError, ConnectionResetError):
            self.kill()
            return _Outcome(error=f'its process ended {TRIES} times', died=True)
        if resident_gib > largest_gib:
            self.kill()
        return _Outcome(answer, error)

    def kill(self) -> None:
        self.alive = False
        self._here.close()
        self._process.terminate()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that is started now ignore Ctrl-C: the parent says when it is over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    use_one_thread()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            connection.send((work(job), '', _resident_gib()))
        except BrokenPipeError:
            return
        except Exception:
            connection.send((None, traceback.format_exc(), 0.0))


def _resident_gib() -> float:
    try:
        pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf('SC_PAGE_SIZE') / _GIB


def _free_memory_gib() -> float | None:
    try:
        lines = Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith('MemAvailable')), None)
    return None if kib is None else int(kib) * 1024 / _GIB
