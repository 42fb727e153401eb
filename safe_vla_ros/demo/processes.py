"""Child processes that never outlive the demo."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from safe_vla_ros.errors import SafeVlaError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_PR_SET_PDEATHSIG = 1
_LAST_LINES = 15


class ChildError(SafeVlaError):
    """A child process ended although it should run."""


class Child:
    """One Python module in its own process and process group, its output in a file.

    Used as a context manager: leaving it ends the process, with SIGTERM first.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the process; ``start`` or the context manager starts it.

        Args:
            name: Name for messages.
            module: Module to run with ``python -m``.
            arguments: Its command line.
            log: File that takes its standard output and error.
            environment: Variables on top of this process's own.
        """
        self.name = name
        self.log = log
        self._command = [sys.executable, '-m', module, *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id, 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def returncode(self) -> int | None:
        """Exit status, None while it runs; negative when a signal ended it."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open('wb') as output:
            # A group of its own, so that Ctrl-C reaches the demo only, which stops it in order.
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  (nothing but one system call)
            )

    def check(self) -> None:
        """Raise when the process has ended.

        Raises:
            ChildError: It has; the message has its status and last lines.
        """
        code = self.returncode
        if code is not None:
            how = f'signal {-code}' if code < 0 else f'exit status {code}'
            msg = f'{self.name} ended with {how}; the end of {self.log}:\n{self.last_lines()}'
            raise ChildError(msg)

    def last_lines(self) -> str:
        """Return the end of its output."""
        try:
            text = self.log.read_text(encoding='utf-8', errors='replace')
        except OSError as error:
            return f'({error})'
        return '\n'.join(f'  {line}' for line in text.splitlines()[-_LAST_LINES:])

    def stop(self, *, timeout_s: float = 10.0) -> int | None:
        """End the process: SIGTERM, and SIGKILL when it does not obey.

        Returns:
            Its exit status; None when it was never started.
        """
        process = self._process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its end; None when it still runs after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while self.returncode is None and time.monotonic() < deadline_s:
            time.sleep(0.02)
        return self.returncode

    def __enter__(self) -> Child:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop()


def _end_with_parent() -> None:
    """Ask Linux to end this process when the demo is killed without a chance to clean up."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
