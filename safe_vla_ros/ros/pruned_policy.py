"""The executable `pruned_policy`: one node, and a halt before every exit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import rclpy
from rclpy.signals import SignalHandlerOptions

from safe_vla_ros.ros.node import PrunedPolicy
from safe_vla_ros.ros.spinner import Spinner

if TYPE_CHECKING:
    from safe_vla_ros.ros.policy_source import PolicySource

SWITCH_INTERVAL_S = 0.0005
"""How soon the inference thread gives way to a control tick; Python's default is ten times that."""

CALLBACK_PATIENCE_S = 0.3


def main(arguments: list[str] | None = None, *, policies: PolicySource | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; then halt first, while the publishers are active.

    Args:
        arguments: Command line, with ``--ros-args``; the process's own when not given.
        policies: Where policies come from; this package's when not given.

    Returns:
        Exit status.
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
    idle = node.halt_and_leave()
    if not (spinner.end(CALLBACK_PATIENCE_S) and idle):
        # A model that is loading or inferring cannot be interrupted, and nothing moves any more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
