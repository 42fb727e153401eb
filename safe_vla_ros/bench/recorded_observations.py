"""Observations of an unpruned episode, for what must see the same frames with every method."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.rollout import Latency, run_episode

if TYPE_CHECKING:
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Observation, Policy


def record_observations(
    policy: Policy,
    settings: Resolved,
    task: str,
    *,
    init_state: int = 0,
    plain_objects: bool = False,
) -> list[Observation]:
    """Let a policy drive unpruned and return what it saw at every inference.

    Args:
        policy: Loaded with ``settings.policy``.
        settings: Resolved for the arm; its pruning is left aside.
        task: The task's name.
        init_state: Number of the official initial state.
        plain_objects: See ``SimulatedPanda``; for pictures that are passed on.
    """
    arm = SimulatedPanda(task, init_state=init_state, plain_objects=plain_objects)
    try:
        result = run_episode(
            arm,
            policy,
            settings=replace(settings, pruning=replace(settings.pruning, method='none')),
            latency=Latency(),
            seed=init_state,
        )
    finally:
        arm.close()
    seen = (report.outcome.observation for report in result.reports)
    return [observation for observation in seen if observation is not None]
