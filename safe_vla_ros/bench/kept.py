"""Draw what every pruning method keeps, or renews, on the same frames of an episode.

The unpruned policy drives. Every method plans on all of its observations, with its own memory. A
row of the picture is a method, a column a moment, each with both cameras.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from safe_vla_ros.bench.recorded_observations import record_observations
from safe_vla_ros.bench.study_plan import expand
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import load_policy, read_spec
from safe_vla_ros.runtime.overlay import TokenArea, render_record
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.whole_files import written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safe_vla_ros.types import Observation, Policy, PruningSettings, UInt8Array

GAP_PX = 6


def draw_row(
    policy: Policy,
    settings: PruningSettings,
    observations: Sequence[Observation],
    moments: Sequence[int],
    *,
    area: TokenArea,
) -> list[UInt8Array]:
    """Return one picture per moment: the overlays of all cameras side by side.

    Args:
        policy: The policy.
        settings: How it prunes.
        observations: Of the whole episode, in order; the memory needs all before a moment.
        moments: Numbers of observations to draw, from 0.
        area: Where in the images the token grids lie.
    """
    memory, pictures = policy.new_episode(), {}
    for step, observation in enumerate(observations[: max(moments) + 1]):
        record = policy.infer(observation, memory, settings).record
        if step in moments:
            views = [
                render_record(image, record, camera, episode=1, step=step, area=area)
                for camera, image in observation.images.items()
            ]
            pictures[step] = np.hstack(views)
    return [pictures[step] for step in moments]


def draw(options: argparse.Namespace) -> UInt8Array:
    """Return the whole picture, uint8 RGB.

    Raises:
        SafeVlaError: A setting is not allowed, the policy cannot be loaded, or the episode ends
            before a moment.
    """
    spec = read_spec(options.policy)
    settings = {
        variant.label: resolve_episode(
            spec,
            {'policy': options.policy, **variant.parameters, 'pruning.method': variant.method},
        )
        for variant in expand(options.methods, [options.keep_ratio])
    }
    first = next(iter(settings.values()))
    policy = load_policy(options.policy, first.policy)
    observations = record_observations(
        policy,
        first,
        options.task,
        init_state=options.init_state,
        plain_objects=not options.own_looks,
    )
    if max(options.moments) >= len(observations):
        msg = f'the episode has {len(observations)} inferences, --moments asks for later ones'
        raise SafeVlaError(msg)
    area = TokenArea.of(first.policy)
    rows = []
    for label, resolved in settings.items():
        cells = draw_row(policy, resolved.pruning, observations, options.moments, area=area)
        rows.append(np.hstack([_padded(cell) for cell in cells]))
        print(label, flush=True)
    whole = np.vstack(rows)
    size = (round(whole.shape[1] * options.scale), round(whole.shape[0] * options.scale))
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _padded(picture: UInt8Array) -> UInt8Array:
    return np.pad(picture, ((0, GAP_PX), (0, GAP_PX), (0, 0)), constant_values=255)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.kept',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--policy', default='mini_libero', help='policy: directory or bundled name')
    add(
        '--methods',
        nargs='+',
        default=['safe', 'random', 'vla_cache', 'refresh'],
        metavar='VARIANT',
        help='as in bench.success (default: %(default)s)',
    )
    add('--keep-ratio', type=float, default=0.25)
    add('--task', default='libero_spatial/8', metavar='TASK')
    add('--init-state', type=int, default=0, help='official initial state (default: 0)')
    add(
        '--own-looks',
        action='store_true',
        help='show things of restricted licences as they are; not for passing on',
    )
    add('--moments', nargs='+', type=int, default=[3, 9, 15], help='inferences to show, from 0')
    add('--scale', type=float, default=0.75, help='size of the picture (default: 0.75)')
    add('--out', type=Path, default=Path('out/kept.jpg'), help='picture (default: %(default)s)')
    options = parser.parse_args(arguments)
    try:
        picture = draw(options)
    except SafeVlaError as error:
        print(f'ERROR {error}', file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    coded, data = cv2.imencode(options.out.suffix, picture[..., ::-1])
    assert coded
    with written_whole(options.out) as partial:
        partial.write_bytes(data.tobytes())
    print(f'wrote {options.out}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
