"""The executable `pruned_policy`: one node, and a halt before every exit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

import rclpy
from rclpy.signals import SignalHandlerOptions

from safe_vla_ros.ros.node import PrunedPolicy
from safe_vla_ros.ros.spinner import Spinner

if TYPE_CHECKING:
    from safe_vla_ros.ros.policy_source import PolicySource

SWITCH_INTERVAL_S = 0.0005
"""How soon the inference thread gives way to a control tick; Python's default is ten times that."""

CALLBACK_PATIENCE_S = 0.3
LEAVING_PATIENCE_S = 1.0
"""After the halt, what cannot be ended in this time is left to the operating system."""


def run(arguments: list[str] | None = None, *, policies: PolicySource | None = None) -> None:
    """Run the node until SIGINT or SIGTERM; then halt first, while the publishers are active.

    Args:
        arguments: Command line, with ``--ros-args``; the process's own when not given.
        policies: Where policies come from; this package's when not given.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # rclpy's own handlers would make the publishers useless before the halt.
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    node = PrunedPolicy(policies=policies)
    spinner = Spinner(node, 'callbacks')
    while not asked.wait(0.5) and rclpy.ok():
        pass
    node.get_logger().info('halting before the exit')
    node.halt()
    deadline = threading.Timer(LEAVING_PATIENCE_S, _leave)
    deadline.daemon = True
    deadline.start()
    node.leave()
    if spinner.end(CALLBACK_PATIENCE_S):
        node.destroy_node()
    rclpy.try_shutdown()


def main(arguments: list[str] | None = None, *, policies: PolicySource | None = None) -> NoReturn:
    """Run the node and end the process, without waiting for a model that loads or infers."""
    run(arguments, policies=policies)
    _leave()


def _leave() -> NoReturn:
    """End the process: nothing moves, nothing is left to save, and torch takes long to unwind."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == '__main__':
    main()
