"""Closed-loop episodes of many tasks and seeds on all cores."""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from safe_vla_ros.policies import load_policy
from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals
from safe_vla_ros.runtime.states import StateName
from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.lifting import LiftWatch
from safe_vla_ros.sim.retold import RetoldPolicy
from safe_vla_ros.sim.rollout import EpisodeResult, Latency, run_episode
from safe_vla_ros.sim.shadow import Shadow, ShadowPolicy
from safe_vla_ros.sim.tasks import SPATIAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Policy, PolicySettings, PruningSettings


@dataclass(frozen=True)
class EpisodeJob:
    """One episode to run.

    Attributes:
        policy: Policy directory or bundled name.
        task: Name, see ``tasks.get_task``.
        seed: Seed of the scene and of the latency's spread. The benchmark has 0 with its own
            initial states, where it only places cabinet and stove.
        settings: Resolved for the arm, see ``closed_loop.resolve_episode``.
        init_state: Number of an official initial state; None places objects afresh by the seed.
        shadows: Methods that plan on the same observations without being played; those of
            ``settings`` should then be ``none``, which they are compared with.
        told: What the policy is told; None is the task's own sentence.
    """

    policy: str
    task: str
    seed: int
    settings: Resolved
    init_state: int | None = None
    shadows: tuple[PruningSettings, ...] = ()
    told: str | None = None


@dataclass(frozen=True)
class EpisodeSummary:
    """What one episode came to.

    Attributes:
        task, seed, init_state, method: What was run.
        success: Whether the task was solved.
        duration_s: Simulated time, seconds.
        inferences: Policy passes.
        key_steps: Passes that renewed the reference, by reason.
        full_passes: Passes that kept every visual token.
        tokens_kept, tokens_total: Visual tokens over all passes.
        decoder_macs, decoder_macs_full: Multiply-accumulates over all passes.
        similarities: kappa of every pass that had one.
        starved_s: Time without a plan, seconds.
        shadows: What the job's other methods would have done.
        first_lifted: Which bowl was lifted first, ``lifting.ASKED`` or ``lifting.OTHER``; None when
            none was, or when nobody watched.
    """

    task: str
    seed: int
    init_state: int | None
    method: str
    success: bool
    duration_s: float
    inferences: int
    key_steps: dict[str, int]
    full_passes: int
    tokens_kept: int
    tokens_total: int
    decoder_macs: int
    decoder_macs_full: int
    similarities: list[float]
    starved_s: float
    shadows: tuple[Shadow, ...] = ()
    first_lifted: str | None = None


def run_jobs(jobs: list[EpisodeJob], *, processes: int) -> Iterator[EpisodeSummary]:
    """Run episodes in processes of one thread each; yields them as they end.

    A process keeps one scene (about 1 GB) and needs seconds for another, so they run task by task.
    """
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(processes, mp_context=context, initializer=use_one_thread) as pool:
        in_turn = sorted(jobs, key=lambda job: job.task)
        for future in as_completed([pool.submit(_run, job) for job in in_turn]):
            yield future.result()


def summarise(
    job: EpisodeJob, result: EpisodeResult, first_lifted: str | None = None
) -> EpisodeSummary:
    """Count what an episode's inferences did."""
    records = [report.outcome.record for report in result.reports]
    passes = [PrunedPass.of(record) for record in records if record is not None]
    totals = PruningTotals(passes)
    return EpisodeSummary(
        task=job.task,
        seed=job.seed,
        init_state=job.init_state,
        method=job.settings.pruning.method,
        success=result.success,
        duration_s=result.duration_s,
        inferences=totals.passes,
        key_steps=dict(totals.reasons),
        full_passes=totals.full_passes,
        tokens_kept=totals.tokens_kept,
        tokens_total=totals.tokens_total,
        decoder_macs=totals.decoder_macs,
        decoder_macs_full=totals.decoder_macs_full,
        similarities=[one.similarity for one in passes if one.similarity is not None],
        starved_s=result.halts.get(StateName.STARVED, 0.0),
        first_lifted=first_lifted,
    )


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's score interval of a share (95 % by default)."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    scale = 1.0 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


def _run(job: EpisodeJob) -> EpisodeSummary:
    arm = _arm_for(job.task)
    arm.reset(job.seed, init_state=job.init_state)
    policy = _policy(job.policy, job.settings.policy)
    leader = policy if job.told is None else RetoldPolicy(policy, job.told)
    compared = ShadowPolicy(leader, job.shadows, executed=job.settings.control.execute_steps)
    watch = LiftWatch()
    result = run_episode(
        arm,
        compared,
        settings=job.settings,
        latency=Latency(),
        seed=job.seed + (job.init_state or 0),
        on_frame=watch if arm.task.suite == SPATIAL else None,
    )
    return replace(summarise(job, result, watch.first), shadows=tuple(compared.shadows))


_LOADED: list[SimulatedPanda] = []
"""The process's arm, if it has one already."""


def _arm_for(task: str) -> SimulatedPanda:
    if not (_LOADED and _LOADED[0].has_task(task)):
        while _LOADED:
            _LOADED.pop().close()
        _LOADED.append(SimulatedPanda(task))
    _LOADED[0].ask(task)
    return _LOADED[0]


@lru_cache(maxsize=1)
def _policy(reference: str, settings: PolicySettings) -> Policy:
    return load_policy(reference, settings)


def use_one_thread() -> None:
    """Let this worker process compute with one thread."""
    import torch  # noqa: PLC0415  (in the worker process)

    torch.set_num_threads(1)
