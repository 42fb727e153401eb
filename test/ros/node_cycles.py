"""Cycles of the node with the bundled policy, in a process of its own: what is left after each."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from node_bench import open_context
from rclpy.lifecycle import TransitionCallbackReturn

from safe_vla_ros.ros.node import PrunedPolicy
from safe_vla_ros.ros.spinner import Spinner

WHOLE = ('configure', 'activate', 'deactivate', 'cleanup')
ACTIVATION = ('activate', 'deactivate')


def main(kind, cycles):
    """Print one JSON object per cycle: resident memory, threads, file descriptors."""
    context = open_context()
    node = PrunedPolicy(context=context, namespace=f'cycles{os.getpid()}')
    spinner = Spinner(node, 'node')
    transitions = WHOLE if kind == 'whole' else ACTIVATION
    if kind != 'whole':
        run(node, ('configure',))
    for _ in range(cycles):
        run(node, transitions)
        print(json.dumps(what_is_held()), flush=True)
    spinner.end()
    node.destroy_node()
    context.try_shutdown()


def run(node, transitions):
    for name in transitions:
        result = getattr(node, f'trigger_{name}')()
        assert result == TransitionCallbackReturn.SUCCESS, name


def what_is_held():
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return {
        'resident_mib': pages * os.sysconf('SC_PAGE_SIZE') / 2**20,
        'threads': len(list(Path('/proc/self/task').iterdir())),
        'files': len(list(Path('/proc/self/fd').iterdir())),
    }


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
