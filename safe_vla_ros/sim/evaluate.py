"""Closed-loop episodes of many tasks and seeds on all cores."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from safe_vla_ros.garbage import free_memory
from safe_vla_ros.policies import load_policy
from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals
from safe_vla_ros.runtime.states import StateName
from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.disturbances import DISTURBANCES
from safe_vla_ros.sim.episode_workers import run_warm
from safe_vla_ros.sim.lifting import LiftWatch
from safe_vla_ros.sim.retold import RetoldPolicy
from safe_vla_ros.sim.rollout import EpisodeResult, Latency, run_episode
from safe_vla_ros.sim.shadow import Shadow, ShadowPolicy, merge_shadows
from safe_vla_ros.sim.tasks import SPATIAL, split_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        told: What the policy is told; None is the task's own sentence.
        latency_seed: Seed of the latency's spread; None takes seed and initial state for it.
        disturbance: Name in ``disturbances.DISTURBANCES``; empty for none.
        shadows: Methods that plan on the same observations without being played; those of
            ``settings`` should then be ``none``, which they are compared with.
        compare: Let no pruning plan on the same observations instead, for the action error.
    """

    policy: str
    task: str
    seed: int
    settings: Resolved
    init_state: int | None = None
    told: str | None = None
    latency_seed: int | None = None
    disturbance: str = ''
    shadows: tuple[PruningSettings, ...] = ()
    compare: bool = False


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
        first_lifted: Which bowl was lifted first, ``lifting.ASKED`` or ``lifting.OTHER``; None when
            none was, or when nobody watched.
        shadows: What the job's other methods would have done.
        action_error_mm, action_bias_mm: Against no pruning on the same observations, see
            ``shadow.ShadowFigures``; None where it was not compared.
        cpu_s: Processor time that the episode took, seconds.
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
    first_lifted: str | None = None
    shadows: tuple[Shadow, ...] = ()
    action_error_mm: float | None = None
    action_bias_mm: float | None = None
    cpu_s: float = 0.0


def run_jobs(jobs: Sequence[EpisodeJob], *, processes: int) -> Iterator[EpisodeSummary]:
    """Run episodes in processes of one thread each; yields them as they end.

    A process keeps one scene and needs seconds for another, so it stays with it while it can.

    Raises:
        SafeVlaError: An episode raised an error.
    """
    for _, episode in run_warm(jobs, run_job, processes=processes, place=scene_of):
        yield episode


def scene_of(job: EpisodeJob) -> tuple[str, int]:
    """Return what a process must have loaded for a job: suite and number of the task."""
    return split_name(job.task)[:2]


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


def run_job(job: EpisodeJob) -> EpisodeSummary:
    """Run one episode in this process, which keeps the scene and the policy for the next."""
    start_s = time.process_time()
    arm = _arm_for(job.task)
    arm.reset(job.seed, init_state=job.init_state)
    own_seed = job.seed + (job.init_state or 0)
    policy = _policy(job.policy, job.settings.policy)
    if job.told is not None:
        policy = RetoldPolicy(policy, job.told)
    unpruned = replace(job.settings.pruning, method='none')
    shadowed = ShadowPolicy(
        policy,
        [unpruned] if job.compare else job.shadows,
        executed=job.settings.control.execute_steps,
    )
    watch = LiftWatch()
    disturbance = DISTURBANCES[job.disturbance](arm, own_seed) if job.disturbance else None
    try:
        result = run_episode(
            arm,
            shadowed,
            settings=job.settings,
            latency=Latency(),
            seed=own_seed if job.latency_seed is None else job.latency_seed,
            on_frame=watch if arm.task.suite == SPATIAL else None,
            bystanders=[disturbance] if disturbance else [],
        )
    finally:
        if disturbance:
            disturbance.undo()
    summary = summarise(job, result, watch.first)
    if job.compare and summary.inferences:
        (figures,) = merge_shadows([shadowed.shadows])
        summary = replace(
            summary,
            action_error_mm=1e3 * figures.error_m,
            action_bias_mm=None if figures.bias_m is None else 1e3 * figures.bias_m,
        )
    else:
        summary = replace(summary, shadows=tuple(shadowed.shadows))
    return replace(summary, cpu_s=time.process_time() - start_s)


_LOADED: list[SimulatedPanda] = []
"""The process's arm, if it has one already."""


def _arm_for(task: str) -> SimulatedPanda:
    if not (_LOADED and _LOADED[0].has_task(task)):
        while _LOADED:
            _LOADED.pop().close()
        free_memory()
        _LOADED.append(SimulatedPanda(task))
    _LOADED[0].ask(task)
    return _LOADED[0]


@lru_cache(maxsize=1)
def _policy(reference: str, settings: PolicySettings) -> Policy:
    return load_policy(reference, settings)
