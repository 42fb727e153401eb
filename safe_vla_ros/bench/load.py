"""Memory and time that loading an OpenVLA-OFT checkpoint takes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from safe_vla_ros.bench.machine import PeakMemory, describe_machine, resident_gib
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.garbage import free_memory
from safe_vla_ros.policies import openvla_oft
from safe_vla_ros.policies.device import choose_device
from safe_vla_ros.policies.packed_linear import weight_bytes
from safe_vla_ros.whole_files import write_json

_GIB = 2**30


def measure_load(path: Path, device: str) -> dict[str, float | str]:
    """Load a checkpoint in this process and say what it took.

    Args:
        path: The checkpoint directory.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        GiB of the weights kept, resident memory before, peak while loading, their ratio, seconds.

    Raises:
        CheckpointError: The directory cannot be loaded.
    """
    place = choose_device(device)
    peak = PeakMemory(place)
    before = resident_gib() if place.type == 'cpu' else 0.0
    peak.restart()
    start = time.perf_counter()
    model = openvla_oft.load_model(openvla_oft.open_directory(path), device=device)
    seconds = time.perf_counter() - start
    parts = (model.network, model.head, model.proprio_projector)
    weights = sum(weight_bytes(part) for part in parts if part is not None) / _GIB
    highest = peak.gib() or 0.0
    return {
        'device': str(place),
        'weights_gib': round(weights, 6),
        'resident_before_gib': round(before, 3),
        'peak_gib': round(highest, 3),
        'peak_over_weights': round((highest - before) / weights, 4),
        'seconds': round(seconds, 1),
    }


def measure_repeated(path: Path, device: str, times: int) -> dict[str, object]:
    """Load a checkpoint again and again in this process, each time after the one before is gone.

    Args:
        path: The checkpoint directory.
        device: ``auto``, ``cpu`` or ``cuda``.
        times: How often.

    Returns:
        ``loads``: ``measure_load`` of each, in order; what is resident before the second tells what
        the first left behind. ``peak_over_weights``: the highest memory of all, above what was
        resident at the start, per weights of one model.

    Raises:
        CheckpointError: The directory cannot be loaded.
    """
    loads = []
    for _ in range(times):
        loads.append(measure_load(path, device))
        free_memory()  # As the node does when it is cleaned up.
    highest = max(float(load['peak_gib']) for load in loads)
    first = loads[0]
    above = highest - float(first['resident_before_gib'])
    return {
        'loads': loads,
        'peak_over_weights': round(above / float(first['weights_gib']), 4),
    }


def measure_in_own_process(path: Path, device: str) -> dict[str, float | str]:
    """Run ``measure_load`` in a fresh process, so that nothing else counts."""
    command = [sys.executable, '-m', 'safe_vla_ros.bench.load', str(path), '--device', device]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float | str] = json.loads(done.stdout)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.load',
        description='Load an OpenVLA-OFT checkpoint, and print memory and time as JSON.',
    )
    parser.add_argument('path', type=Path, help='checkpoint directory')
    parser.add_argument('--device', default='cpu', help='auto, cpu or cuda (default: %(default)s)')
    parser.add_argument(
        '--repeat', type=int, metavar='N', help='load it N times in a row in this process'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='also write it here')
    options = parser.parse_args(arguments)
    try:
        result: Mapping[str, object] = (
            measure_load(options.path, options.device)
            if options.repeat is None
            else measure_repeated(options.path, options.device, max(1, options.repeat))
        )
        print(json.dumps(result))
        if options.json is not None:
            machine = describe_machine(choose_device(options.device))
            command = ' '.join(['python -m safe_vla_ros.bench.load', *(arguments or sys.argv[1:])])
            write_json(options.json, {'command': command, 'machine': machine, 'loading': result})
    except SafeVlaError as error:
        print(f'ERROR {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
