"""Memory and time that loading an OpenVLA-OFT checkpoint takes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from safe_vla_ros.bench.machine import PeakMemory, resident_gib
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import openvla_oft
from safe_vla_ros.policies.device import choose_device
from safe_vla_ros.policies.packed_linear import weight_bytes

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
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(measure_load(options.path, options.device)))
    except SafeVlaError as error:
        print(f'ERROR {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
