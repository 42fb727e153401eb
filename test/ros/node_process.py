"""The node with a fake policy as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from node_bench import DOMAIN, PATIENCE_S

FAKE_NODE = Path(__file__).parent / 'fake_node.py'


class Process:
    """A node started from the command line; killed at the end if it still runs."""

    def __init__(self, *ros_arguments, program=(FAKE_NODE,)):
        self.child = subprocess.Popen(
            [sys.executable, *program, '--ros-args', *ros_arguments],
            env={
                **os.environ,
                'ROS_DOMAIN_ID': str(DOMAIN),
                'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def ask_to_end(self, number):
        self.child.send_signal(number)
        return time.monotonic()

    def wait(self):
        return self.child.wait(PATIENCE_S)


def in_namespace(namespace, **parameters):
    """Return ROS arguments; dots of parameter names are written as double underscores."""
    items = [f'{name.replace("__", ".")}:={_yaml(value)}' for name, value in parameters.items()]
    return ['-r', f'__ns:={namespace}', *(part for item in items for part in ('-p', item))]


def _yaml(value):
    return str(value).lower() if isinstance(value, bool) else value
