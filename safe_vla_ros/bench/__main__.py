"""`ros2 run safe_vla_ros bench NAME ...`: one name for every benchmark."""

from __future__ import annotations

import runpy
import sys

BENCHMARKS = {
    'success': 'success in closed loop, in process, on the same scenes',
    'latency': "pruned and unpruned inferences of the bundled policy on a robot's own frames",
    'kept': 'picture of what every pruning method keeps on the same frames',
    'speed': 'latency and multiply-accumulates at real model sizes',
    'golden': 'agreement with what the published code computed',
    'load': 'memory and time to load a checkpoint',
    'replay': 'cost of a replay without its policy, and of an overlay',
}
"""Modules of this package that are programs, with what they do."""


def main() -> None:
    """Run the benchmark that the first argument names with the others."""
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        lines = '\n'.join(f'  {name:<8} {what}' for name, what in BENCHMARKS.items())
        asked = len(sys.argv) > 1 and sys.argv[1] in ('-h', '--help')
        print(
            f'usage: bench NAME [options]\n\n{lines}\n\n"bench NAME --help" lists the options',
            file=sys.stdout if asked else sys.stderr,
        )
        sys.exit(0 if asked else 2)
    module = f'safe_vla_ros.bench.{sys.argv[1]}'
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name='__main__', alter_sys=True)


if __name__ == '__main__':
    main()
