"""A thread that spins one executor, ended by the one who started it."""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from typing import TYPE_CHECKING

from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

if TYPE_CHECKING:
    from rclpy.node import Node

LONGEST_WAIT_S = 1.0

REAL_TIME_PRIORITY = 10
NICENESS = -10
"""Of an urgent thread where real-time scheduling is not allowed, but this is."""


def hurry() -> None:
    """Let this thread go before all ordinary ones, as far as the system allows it.

    Linux knows both per thread. They need `rtprio` or `nice` in limits.conf, or CAP_SYS_NICE.
    """
    thread = threading.get_native_id()
    try:
        # What this thread starts shall not hurry.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(thread, policy, os.sched_param(REAL_TIME_PRIORITY))
    except (OSError, AttributeError):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, NICENESS)


class Spinner:
    """Spins a node in its own thread.

    A single-threaded executor: beside a busy inference thread on two cores a multi-threaded one was
    seen to delay a 50 Hz timer two to three times as much (p99 12 to 14 ms instead of 5).
    """

    def __init__(self, node: Node, name: str, *, urgent: bool = False) -> None:
        """Begin to spin.

        Args:
            node: A node that no other executor spins.
            name: Name of the thread.
            urgent: Whether the thread goes before others where the system allows it.
        """
        self._urgent = urgent
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._say_error = node.get_logger().error
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, name=name, daemon=True)
        self._thread.start()

    def end(self, timeout_s: float | None = None) -> bool:
        """Let the callback that is running finish, and end the thread.

        Args:
            timeout_s: How long to wait for that callback; None waits for ever.

        Returns:
            Whether the thread has ended.
        """
        self._ending.set()
        # Waking the executor would only make it wait again; a task makes it return.
        self._executor.create_task(lambda: None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        # A callback that awaits something is not over yet, though the thread is.
        return bool(self._executor.shutdown(timeout_s))

    def _spin(self) -> None:
        if self._urgent:
            hurry()
        while not self._ending.is_set() and self._executor.context.ok():
            self._spin_once()

    def _spin_once(self) -> None:
        try:
            self._executor.spin_once(timeout_sec=LONGEST_WAIT_S)
        except ExternalShutdownException:
            self._ending.set()
        except Exception as error:
            # One bad callback must not silence the others.
            self._say_error(''.join(traceback.format_exception(error)))
