"""Processes that run jobs one by one and stay warm: each keeps what the last job has loaded."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

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
    among the next ``window``. Interrupting or closing the iterator ends the workers at once.

    Args:
        jobs: Each can be pickled.
        work: Runs one; a module's function.
        processes: Number of workers.
        place: Tells what a job needs loaded.
        window: How far ahead a worker may look.
        largest_gib: A worker that holds more after a job is replaced.

    Raises:
        SafeVlaError: A job raised an error, or its process ended twice under it.
    """
    waiting = [_Waiting(job) for job in jobs]
    workers: list[_Worker[Job, Answer]] = []
    try:
        while waiting or any(worker.current for worker in workers):
            workers = [worker for worker in workers if worker.alive]
            while len(workers) < min(processes, len(workers) + len(waiting)):
                workers.append(_Worker(work))
            for worker in workers:
                if worker.current is None and waiting:
                    worker.begin(_take(waiting, worker.place, place, window), place)
            for worker in _answered(workers):
                done = worker.current
                assert done is not None
                outcome = worker.finish(largest_gib)
                if outcome is None:
                    done.tries += 1
                    if done.tries == TRIES:
                        msg = f'a process ended {TRIES} times while it ran {done.job}'
                        raise SafeVlaError(msg)
                    waiting.insert(0, done)
                else:
                    yield done.job, outcome
    finally:
        for worker in workers:
            worker.kill()


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


class _Worker(Generic[Job, Answer]):
    """One process, from this side."""

    def __init__(self, work: Callable[[Job], Answer]) -> None:
        context = multiprocessing.get_context('spawn')
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, work), daemon=True)
        self._process.start()
        there.close()
        self.current: _Waiting[Job] | None = None
        self.place: object = None
        self.alive = True

    @property
    def connection(self) -> Connection:
        return self._here

    def begin(self, waiting: _Waiting[Job], place: Callable[[Job], object]) -> None:
        self.current, self.place = waiting, place(waiting.job)
        with suppress(BrokenPipeError):  # then ``finish`` finds the end of the file
            self._here.send(waiting.job)

    def finish(self, largest_gib: float) -> Answer | None:
        """Take the answer; None if the process has ended instead."""
        self.current = None
        try:
            answer, error, resident_gib = self._here.recv()
        except (EOFError, ConnectionResetError):
            self.kill()
            return None
        if error:
            raise SafeVlaError(error)
        if resident_gib > largest_gib:
            self.kill()
        result: Answer = answer
        return result

    def kill(self) -> None:
        self.alive = False
        self._here.close()
        self._process.terminate()
        self._process.join(5.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _take(
    waiting: list[_Waiting[Job]],
    at: object,
    place: Callable[[Job], object],
    window: int,
) -> _Waiting[Job]:
    for index, one in enumerate(waiting[:window]):
        if place(one.job) == at:
            return waiting.pop(index)
    return waiting.pop(0)


def _answered(workers: Sequence[_Worker[Job, Answer]]) -> list[_Worker[Job, Answer]]:
    busy = {worker.connection: worker for worker in workers if worker.current is not None}
    return [busy[connection] for connection in wait(list(busy)) if connection in busy]


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it is over
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
            connection.send((None, f'{job}\n{traceback.format_exc()}', 0.0))


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
