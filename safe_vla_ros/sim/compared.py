"""A policy that is compared with itself unpruned, to find out what pruning does to its actions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from safe_vla_ros.types import (
        ActionChunk,
        EpisodeMemory,
        Float64Array,
        Observation,
        Policy,
        PolicySpec,
        PruningSettings,
    )

COMPARED_ACTIONS = 4
"""How many actions of a chunk are compared: about as many as are played."""

BIAS_PASSES = 5
"""Over so many passes in a row errors are averaged before their size is taken."""


class ComparedPolicy:
    """Another policy, which also runs unpruned on every observation, and notes the difference.

    Attributes:
        errors_m: Displacement pruned minus unpruned by pass, float64 [4, 3] each, metres.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.errors_m: list[Float64Array] = []

    @property
    def spec(self) -> PolicySpec:
        """The other policy's."""
        return self._policy.spec

    def new_episode(self) -> EpisodeMemory:
        """Return a memory of the other policy."""
        return self._policy.new_episode()

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Let the other policy act, then once more unpruned and without a memory."""
        chunk = self._policy.infer(observation, memory, pruning)
        unpruned = replace(pruning, method='none')
        whole = self._policy.infer(observation, self._policy.new_episode(), unpruned)
        error = chunk.translation_m - whole.translation_m
        self.errors_m.append(error[:COMPARED_ACTIONS])
        return chunk

    @property
    def error_mm(self) -> float | None:
        """Mean length of the error of an action, millimetres; None without a pass."""
        return mean_error_mm(self.errors_m)

    @property
    def bias_mm(self) -> float | None:
        """What of it stays when passes in a row are averaged, millimetres; None without a pass."""
        return lasting_error_mm(self.errors_m)


def mean_error_mm(errors_m: list[Float64Array]) -> float | None:
    """Return the mean length over passes and actions, millimetres.

    Args:
        errors_m: By pass, float64 [A, 3], metres.
    """
    if not errors_m:
        return None
    return float(1e3 * np.linalg.norm(np.stack(errors_m), axis=2).mean())


def lasting_error_mm(errors_m: list[Float64Array]) -> float | None:
    """Return the mean length of the error's mean over every five passes in a row, millimetres.

    An error that changes its direction from pass to pass averages out, one that stays does not.
    What is left over at the end is not counted; fewer passes than five are one group.

    Args:
        errors_m: By pass, float64 [A, 3], metres.
    """
    if not errors_m:
        return None
    size = min(BIAS_PASSES, len(errors_m))
    groups = len(errors_m) // size
    errors = np.stack(errors_m[: groups * size])
    means = errors.reshape(groups, size, *errors.shape[1:]).mean(axis=1)
    return float(1e3 * np.linalg.norm(means, axis=2).mean())
