"""The thread that inferences run in: one at a time, always on the newest observation."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from safe_vla_ros.runtime.inference import InferenceReport
from safe_vla_ros.runtime.policy_runtime import PolicyRuntime

_log = logging.getLogger(__name__)


class InferenceWorker:
    """Asks the runtime for due inferences and runs them off the control path."""

    def __init__(
        self,
        runtime: PolicyRuntime,
        on_report: Callable[[InferenceReport], None],
        *,
        on_error: Callable[[Exception], None] | None = None,
        poll_period_s: float = 0.01,
    ) -> None:
        """Prepare; ``start`` starts the thread.

        Args:
            runtime: Knows when an inference is due.
            on_report: Called in the worker's thread after each inference, but not after ``stop``.
            on_error: Told what ``on_report`` or the runtime raised; logged when not given.
            poll_period_s: Longest time between two looks at whether an inference is due, seconds.
        """
        self._runtime = runtime
        self._on_report = on_report
        self._on_error = on_error or _log_error
        self._poll_period_s = poll_period_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def thread(self) -> threading.Thread | None:
        """The thread while it is alive, perhaps in its last inference; None otherwise."""
        return self._thread if self._thread is not None and self._thread.is_alive() else None

    @property
    def running(self) -> bool:
        """Whether the thread is alive, perhaps in its last inference."""
        return self.thread is not None

    def start(self) -> None:
        """Start the thread; one that was stopped in an inference is waited for in the new one."""
        if self.running and not self._stop.is_set():
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop, self._thread), name='inference', daemon=True
        )
        self._thread.start()

    def wake(self) -> None:
        """Look now whether an inference is due; call it when an image came or a tick was made."""
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Stop after the inference that is running; its chunk is not reported any more.

        Args:
            timeout_s: How long to wait for the thread, seconds.

        Returns:
            Whether the thread has ended.
        """
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self.running

    def _run(self, stop: threading.Event, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        while not stop.is_set():
            try:
                worked = self._work(stop)
            except Exception as error:
                self._on_error(error)
                worked = False
            if not worked:
                self._wake.wait(self._poll_period_s)
                self._wake.clear()

    def _work(self, stop: threading.Event) -> bool:
        job = self._runtime.begin_inference()
        if job is None:
            return False
        report = self._runtime.finish_inference(self._runtime.run_inference(job))
        if not stop.is_set():
            self._on_report(report)
        return True


def _log_error(error: Exception) -> None:
    _log.error('the inference worker goes on after an error', exc_info=error)
