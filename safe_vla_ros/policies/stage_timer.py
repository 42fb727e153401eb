"""Milliseconds per stage of one inference, on the CPU and on CUDA."""

from __future__ import annotations

import time
from types import TracebackType

import torch


class StageTimer:
    """Adds up the time of named stages; stages may nest and repeat.

    On CUDA a stage is a pair of events, so measuring does not make the host wait; reading does.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == 'cuda'
        self._spans: list[tuple[str, float]] = []
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    def stage(self, name: str) -> _Stage:
        """Return a context manager that adds its duration to a stage."""
        return _Stage(self, name)

    def milliseconds(self) -> dict[str, float]:
        """Return the time of every stage so far; waits for the device where there is one."""
        total: dict[str, float] = {}
        for name, seconds in self._spans:
            total[name] = total.get(name, 0.0) + 1e3 * seconds
        for name, start, end in self._events:
            end.synchronize()
            total[name] = total.get(name, 0.0) + start.elapsed_time(end)
        return total

    def _now(self) -> float | torch.cuda.Event:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _add(self, name: str, start: float | torch.cuda.Event) -> None:
        end = self._now()
        if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
            self._events.append((name, start, end))
        elif isinstance(start, float) and isinstance(end, float):
            self._spans.append((name, end - start))


class _Stage:
    __slots__ = ('_name', '_start', '_watch')

    def __init__(self, watch: StageTimer, name: str) -> None:
        self._watch = watch
        self._name = name

    def __enter__(self) -> None:
        self._start = self._watch._now()  # noqa: SLF001

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watch._add(self._name, self._start)  # noqa: SLF001
