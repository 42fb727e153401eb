"""Measure how fast LIBERO's pictures are rendered on one core, and how much they differ.

Rates are per CPU second of this process. The difference is the mean over pixels and colours of the
absolute difference to the benchmark's own picture, of 255 grey levels.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.sim.arm import STEP_S, SimulatedPanda
from safe_vla_ros.sim.mesh_decimation import decimate
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, Renderer

if TYPE_CHECKING:
    from safe_vla_ros.sim.rendering import SceneSnapshot
    from safe_vla_ros.types import UInt8Array


@dataclass
class Measured:
    """One way to render.

    Attributes:
        seconds: CPU time of a picture by camera.
        pictures: One per snapshot, by camera.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, list[UInt8Array]] = field(default_factory=dict)

    def row(self, label: str, stock: Measured) -> str:
        """Return a line of the table."""
        cells = [label]
        for camera in CAMERA_SIZES_PX:
            own, theirs = np.stack(self.pictures[camera]), np.stack(stock.pictures[camera])
            difference = float(np.abs(own.astype(int) - theirs).mean())
            cells += [f'{1 / self.seconds[camera]:.1f}', f'{difference:.2f}']
        cells.append(f'{1 / sum(self.seconds.values()):.1f}')
        return f'| {" | ".join(cells)} |'


def measure(renderer: Renderer, snapshots: list[SceneSnapshot], repeats: int) -> Measured:
    """Render every snapshot, and some of them again; frees the renderer."""
    measured = Measured()
    for camera in CAMERA_SIZES_PX:
        measured.pictures[camera] = [renderer.render(one, camera) for one in snapshots]
        started_s = time.process_time()
        for index in range(repeats):
            renderer.render(snapshots[index % len(snapshots)], camera)
        measured.seconds[camera] = (time.process_time() - started_s) / repeats
    renderer.close()
    return measured


def physics_s(arm: SimulatedPanda, seconds: float) -> float:
    """Return the CPU time of a simulated second."""
    started_s = time.process_time()
    for _ in range(round(seconds / STEP_S)):
        arm.step(0.0)
    return (time.process_time() - started_s) / seconds


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.render_speed', description=__doc__
    )
    parser.add_argument('--task', default='libero_spatial/0')
    parser.add_argument('--repeats', type=int, default=30, help='pictures per camera and row')
    options = parser.parse_args(arguments)
    arm = SimulatedPanda(options.task, init_state=0, light_meshes=False)
    snapshots = []
    for init_state in range(5):
        arm.reset(0, init_state=init_state)
        snapshots.append(arm.snapshot())
    model = arm.model

    def run(*, stock: bool = False, culling: bool = True) -> Measured:
        return measure(Renderer(model, stock=stock, culling=culling), snapshots, options.repeats)

    stock = run(stock=True)
    cameras = [f'{camera}/s | difference' for camera in CAMERA_SIZES_PX]
    print(f'| how | {" | ".join(cameras)} | both/s |\n|---|---|---|---|---|---|')
    print(stock.row('as the benchmark does', stock))
    plain = 'without shadows, reflections and multisampling'
    print(run(culling=False).row(plain, stock))
    print(run().row('and without what is out of view', stock))
    before, after = decimate(model)
    print(run().row(f'and {after:,} triangles instead of {before:,}', stock))
    print(f'\nPhysics: {1e3 * physics_s(arm, 5.0):.0f} ms of CPU time per simulated second')


if __name__ == '__main__':
    main()
