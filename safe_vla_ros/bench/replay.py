"""Measure what a replay costs without its policy: per message, inference and overlay; memory.

Writes recordings of two 640x480 cameras, replays them with a policy that answers at once, and
prints a table. ``--minutes`` replays a long recording of small images in a process of its own, and
reports the peak of its memory against that of a recording a tenth as long.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from safe_vla_ros.bench.recordings import KINDS, write_recording
from safe_vla_ros.replay.bag_replay import BagTask, replay_bag
from safe_vla_ros.replay.latency import LatencyModel
from safe_vla_ros.replay.replay_setup import OverlaySettings, ReplaySettings, Setup, resolve_methods
from safe_vla_ros.runtime.overlay import render_record
from safe_vla_ros.types import ActionChunk, PolicySpec, PruningRecord
from safe_vla_ros.whole_files import write_json

if TYPE_CHECKING:
    from safe_vla_ros.types import EpisodeMemory, Observation, PruningSettings

GRID = 16
CAMERAS = ('left', 'right')
SPEC = PolicySpec(
    name='instant',
    kind='instant',
    cameras=CAMERAS,
    num_cameras=2,
    chunk_size=8,
    num_layers=32,
    action_period_s=0.05,
    execute_steps=4,
    proprio_layout=('ee_position',),
    linear_scale_m=1.0,
    angular_scale_rad=1.0,
    rotation='axis_angle',
    frame='base',
    gripper_open_value=1.0,
    gripper_closed_value=0.0,
)


class NoMemory:
    """Nothing to remember."""

    reference_stamp_s: float | None = None

    def clear(self, reason: str) -> None:
        """Forget nothing."""


class InstantPolicy:
    """Answers without looking: 256 visual tokens per camera, a quarter of them kept."""

    spec = SPEC

    def __init__(self) -> None:
        scores = np.random.default_rng(0).random((GRID, GRID), np.float32)
        kept = scores >= np.quantile(scores, 0.75)
        self.record = PruningRecord(
            method='fastv',
            total=dict.fromkeys(CAMERAS, GRID * GRID),
            kept=dict.fromkeys(CAMERAS, int(kept.sum())),
            key_step=False,
            reason=None,
            similarity=0.9,
            threshold=0.8,
            scores=dict.fromkeys(CAMERAS, scores),
            kept_masks=dict.fromkeys(CAMERAS, kept),
            stage_ms={'decode': 1.0},
            decoder_macs=1,
            decoder_macs_full=2,
        )
        self.chunk = ActionChunk(np.full((8, 3), 1e-3), np.zeros((8, 3)), np.ones(8), self.record)

    def new_episode(self) -> EpisodeMemory:
        """Return an empty memory."""
        return NoMemory()

    def infer(
        self,
        observation: Observation,  # noqa: ARG002
        memory: EpisodeMemory,  # noqa: ARG002
        pruning: PruningSettings,  # noqa: ARG002
    ) -> ActionChunk:
        """Return always the same chunk."""
        return self.chunk


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.replay', description=__doc__.split('\n', maxsplit=1)[0]
    )
    parser.add_argument(
        '--seconds', type=float, default=10.0, help='length of each recording (%(default)s)'
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=0.0,
        help='length of a long recording to measure memory with; 0 leaves it out (%(default)s)',
    )
    parser.add_argument('--json', type=Path, help='write the figures to this JSON file')
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    figures: dict[str, Any] = {'machine': _machine(), 'overlay_ms': overlay_ms()}
    with tempfile.TemporaryDirectory() as folder:
        figures['replay'] = {
            kind: measure(Path(folder), kind, options.seconds, 'compressed') for kind in KINDS
        }
        figures['replay_without_overlays'] = measure(
            Path(folder), KINDS[0], options.seconds, 'none'
        )
        if options.minutes:
            figures['memory_mib'] = {
                f'{minutes:g} min': peak_memory_mib(Path(folder), minutes)
                for minutes in (options.minutes / 10, options.minutes)
            }
    sys.stdout.write(as_text(figures))
    if options.json:
        write_json(options.json, figures)


def overlay_ms(repeats: int = 200) -> dict[str, float]:
    """Measure the rendering of one overlay at two sizes; median milliseconds on one core."""
    record = InstantPolicy().record
    result = {}
    for height, width in ((480, 640), (224, 224)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            render_record(image, record, CAMERAS[0], episode=1, step=1)
            times.append(time.perf_counter() - begin)
        result[f'{width}x{height}'] = 1000 * float(np.median(times))
    return result


def measure(folder: Path, kind: str, seconds: float, overlays: str) -> dict[str, float]:
    """Replay one recording.

    Returns:
        ``message_ms``, ``inference_ms`` (without the policy), ``tick_ms`` and ``realtime_factor``,
        beside counts.
    """
    bag = folder / f'{kind}'
    if not bag.exists():
        write_recording(bag, kind, seconds, CAMERAS)
    result = _replay(bag, folder / f'{kind}_{overlays}', overlays)
    clock = result['wall_clock']
    total_s = sum(clock.values())
    return {
        'messages': result['messages'],
        'inferences': result['rows'],
        'message_ms': 1000 * clock['messages_s'] / result['messages'],
        'inference_ms': 1000 * clock['inferences_s'] / result['rows'],
        'tick_ms': 1000 * clock['ticks_s'] / (result['played_s'] * 50),
        'realtime_factor': result['played_s'] / total_s,
    }


def peak_memory_mib(folder: Path, minutes: float) -> float:
    """Return the peak resident size of a process that replays a recording of that length."""
    bag = folder / f'long_{minutes:g}'
    write_recording(bag, 'zstd', 60 * minutes, CAMERAS, size=(120, 160))
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_replay_and_weigh, (bag, folder / f'weighed_{minutes:g}'))


def as_text(figures: dict[str, Any]) -> str:
    """Write the figures as Markdown."""
    lines = [f'Machine: {figures["machine"]}', '']
    lines += [f'Overlay {size}: {ms:.2f} ms' for size, ms in figures['overlay_ms'].items()]
    columns = (
        '| recording | messages | ms per message | inferences | ms per inference | real time x |'
    )
    lines += ['', columns, '|---|---|---|---|---|---|']
    rows = {**figures['replay'], 'mcap, no overlays': figures['replay_without_overlays']}
    lines += [
        f'| {kind} | {row["messages"]} | {row["message_ms"]:.3f} | {row["inferences"]} '
        f'| {row["inference_ms"]:.2f} | {row["realtime_factor"]:.1f} |'
        for kind, row in rows.items()
    ]
    lines += [
        f'Peak memory, {length}: {mib:.0f} MiB'
        for length, mib in figures.get('memory_mib', {}).items()
    ]
    return '\n'.join(lines) + '\n'


def _machine() -> dict[str, object]:
    # Not for the process whose memory is measured.
    import torch  # noqa: PLC0415

    from safe_vla_ros.bench.machine import describe_machine  # noqa: PLC0415

    return describe_machine(torch.device('cpu'))


def _replay(bag: Path, out: Path, overlays: str) -> dict[str, Any]:
    settings = ReplaySettings(
        values={'instruction': 'go on', 'command_frame': 'base_link'},
        methods=('fastv',),
        latency=LatencyModel(0.05),
        overlays=OverlaySettings(transport=overlays),
    )
    setup = Setup(settings, resolve_methods(settings, SPEC, ('fastv',)), InstantPolicy())
    out.mkdir()
    result = replay_bag(BagTask(0, bag), setup, out, lambda _done_s, _all_s: True)
    if result['status'] != 'complete':
        msg = f'{bag}: {result["error"]}'
        raise RuntimeError(msg)
    return result


def _replay_and_weigh(bag: Path, out: Path) -> float:
    cv2.setNumThreads(1)
    _replay(bag, out, 'compressed')
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == '__main__':
    main()
