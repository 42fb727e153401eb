"""Collect demonstrations of the scripted experts, or the experts' answers to a policy's own states.

The labels of every frame are the expert's plans from exactly that state, for either bowl: the
expert has no memory, so it can be asked for the bowl that it is not driving at. The expert drives,
with noise and kicks, so that it shows how to recover. With --policy, that policy drives instead
(DAgger).
Existing shards are kept, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.closed_loop import load_bundled, resolve_episode
from safe_vla_ros.sim.dataset import SampleWriter
from safe_vla_ros.sim.evaluate import use_one_thread
from safe_vla_ros.sim.expert import OPEN_GAP_M, plan
from safe_vla_ros.sim.expert_policy import CHUNK_SIZE, EXPERT_SPEC, ExpertPolicy
from safe_vla_ros.sim.marks import object_marks, object_points
from safe_vla_ros.sim.progress_bar import progress_bar
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.rollout import Frame, Latency, run_episode
from safe_vla_ros.sim.tasks import SPATIAL, TASKS, task_names
from safe_vla_ros.types import Float64Array, Policy

NOISE_LEVELS = (0.0, 0.1, 0.2)


@dataclass(frozen=True)
class Shard:
    """One unit of work.

    Attributes:
        path: File that it becomes.
        task: Task's name.
        samples: Frames to label.
        first_seed: Seed of its first episode.
        policy: Directory of the policy that drives, or None for the expert.
        frame_stride: One frame in this many is labelled.
        plain: Draw things of restricted licences in one colour.
    """

    path: Path
    task: str
    samples: int
    first_seed: int
    policy: str | None
    frame_stride: int
    plain: bool


def collect_shard(shard: Shard) -> int:
    """Run episodes until the shard is full, write it and return the number of episodes."""
    arm = SimulatedPanda(shard.task, plain_objects=shard.plain)
    writer = SampleWriter()
    student = load_bundled(shard.policy) if shard.policy else None
    spec = student.spec if student else EXPERT_SPEC
    settings = resolve_episode(spec, {'pruning.method': 'none'})
    episode = 0
    while len(writer) < shard.samples:
        seed = shard.first_seed + episode
        arm.reset(seed)
        expert = ExpertPolicy(noise=NOISE_LEVELS[episode % len(NOISE_LEVELS)], seed=seed)
        driver: Policy = student or expert
        run_episode(
            arm,
            driver,
            settings=settings,
            latency=Latency(),
            seed=seed,
            blind=student is None,
            on_frame=_Recorder(expert, writer, seed, shard.frame_stride),
        )
        episode += 1
    arm.close()
    writer.write(shard.path)
    return episode


class _Recorder:
    def __init__(self, expert: ExpertPolicy, writer: SampleWriter, seed: int, stride: int) -> None:
        self._expert, self._writer, self._seed = expert, writer, seed
        self._stride, self._count = stride, seed % stride

    def __call__(self, arm: SimulatedPanda, frame: Frame, proprio: Float64Array) -> None:
        table = frame.state
        if table is None:
            msg = f'the expert knows {SPATIAL} only, not {arm.task.name}'
            raise ValueError(msg)
        self._expert.see(frame.stamp_s, table)
        self._count += 1
        if self._count % self._stride:
            return
        other = arm.task.other_bowl
        plans = [plan(table, CHUNK_SIZE), plan(table.asked_for_other(), CHUNK_SIZE)]
        # With something in the hand, only what was asked for is worth learning.
        valid = [True, table.gap_m >= OPEN_GAP_M]
        order = (1, 0) if other else (0, 1)
        points = object_points(table, other_asked=other)
        self._writer.add(
            {camera: arm.render(camera, frame.view) for camera in CAMERA_SIZES_PX},
            proprio.astype(np.float32),
            np.stack([plans[index][0] for index in order]).astype(np.float32),
            np.stack([plans[index][1] for index in order]).astype(np.float32),
            np.array([valid[index] for index in order]),
            points.astype(np.float32),
            object_marks(arm.model, frame.view, points).astype(np.float32),
            np.int8(arm.task.task_id),
            np.int64(self._seed),
        )


def collect(shards: list[Shard], *, jobs: int) -> None:
    """Make the shards that do not exist yet, with a progress bar."""
    missing = [shard for shard in shards if not shard.path.exists()]
    context = multiprocessing.get_context('spawn')
    with (
        progress_bar() as progress,
        ProcessPoolExecutor(jobs, mp_context=context, initializer=use_one_thread) as pool,
    ):
        bar = progress.add_task('collecting', total=sum(s.samples for s in shards), note='')
        progress.advance(bar, sum(s.samples for s in shards) - sum(s.samples for s in missing))
        futures = {pool.submit(collect_shard, shard): shard for shard in missing}
        for future in as_completed(futures):
            shard = futures[future]
            episodes = future.result()
            progress.console.print(
                f'{shard.path.name}: {shard.samples} frames, {episodes} episodes'
            )
            progress.advance(bar, shard.samples)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.collect',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--out', type=Path, required=True, help='folder for the shards')
    parser.add_argument('--policy', help='policy that drives instead of the expert (DAgger)')
    parser.add_argument('--tasks', nargs='+', default=list(TASKS), choices=task_names(SPATIAL))
    parser.add_argument('--samples', type=int, default=4000, help='frames to collect per task')
    parser.add_argument('--shards', type=int, default=4, help='shards per task')
    parser.add_argument('--seed', type=int, default=100_000, help='seed of the first episode')
    parser.add_argument('--frame-stride', type=int, default=2, help='label only every n-th frame')
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='number of processes')
    options = parser.parse_args(arguments)
    shards = [
        Shard(
            path=options.out / f'{task.replace("/", "-")}-{index:02d}.npz',
            task=task,
            samples=options.samples // options.shards,
            first_seed=options.seed + 10_000 * index + 1_000 * task_names(SPATIAL).index(task),
            policy=options.policy,
            frame_stride=options.frame_stride,
            plain=bool(index % 2),
        )
        for index in range(options.shards)
        for task in options.tasks
    ]
    collect(shards, jobs=options.jobs)


if __name__ == '__main__':
    main()
