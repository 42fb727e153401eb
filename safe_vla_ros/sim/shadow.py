"""What other methods would do on the observations of an episode that is driven unpruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from safe_vla_ros.types import (
        ActionChunk,
        EpisodeMemory,
        Float64Array,
        Observation,
        Policy,
        PolicySpec,
        PruningSettings,
    )

BIAS_PASSES = 5
"""Passes over which differences are averaged: what is left does not average out over time."""


@dataclass
class Shadow:
    """What one method would have done, summed over passes.

    Attributes:
        settings: How it prunes.
        totals: Tokens, full passes and multiply-accumulates.
        differences_m: Mean difference of displacement from the unpruned plan, one per pass, over
            the actions that are played, float64 [3].
        errors_m: Mean length of that difference action by action, one per pass, metres.
        errors_rad: The same of the rotation vectors, radians.
        residuals: Residual of every pass that had one.
    """

    settings: PruningSettings
    totals: PruningTotals = field(default_factory=PruningTotals)
    differences_m: list[Float64Array] = field(default_factory=list)
    errors_m: list[float] = field(default_factory=list)
    errors_rad: list[float] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)

    def add(self, chunk: ActionChunk, unpruned: ActionChunk, executed: int) -> None:
        """Compare the first ``executed`` actions of two plans for one observation."""
        moved = (chunk.translation_m - unpruned.translation_m)[:executed]
        turned = (chunk.rotation_rad - unpruned.rotation_rad)[:executed]
        self.totals.add(PrunedPass.of(chunk.record))
        self.differences_m.append(moved.mean(axis=0))
        self.errors_m.append(float(np.linalg.norm(moved, axis=1).mean()))
        self.errors_rad.append(float(np.linalg.norm(turned, axis=1).mean()))
        if chunk.record.residual is not None:
            self.residuals.append(chunk.record.residual)


@dataclass(frozen=True)
class ShadowFigures:
    """What a method came to over episodes.

    Attributes:
        settings: How it prunes.
        passes: Passes.
        full_pass_share: Share of them that computed every token.
        macs_share: Multiply-accumulates of the decoder against no pruning.
        error_m: Mean distance from the unpruned action, metres per action.
        error_rad: The same of rotations, radians.
        bias_m: Mean length of the differences averaged over ``BIAS_PASSES``; None without so many.
        residuals: All residuals.
    """

    settings: PruningSettings
    passes: int
    full_pass_share: float
    macs_share: float
    error_m: float
    error_rad: float
    bias_m: float | None
    residuals: tuple[float, ...]


def merge_shadows(episodes: Sequence[Sequence[Shadow]]) -> list[ShadowFigures]:
    """Add up the shadows of several episodes; every episode has the same ones in one order."""
    figures = []
    for shadows in zip(*episodes, strict=True):
        full = sum(shadow.totals.full_passes for shadow in shadows)
        passes = sum(shadow.totals.passes for shadow in shadows)
        macs = sum(shadow.totals.decoder_macs for shadow in shadows)
        biases = [bias for shadow in shadows for bias in _biases(shadow.differences_m)]
        figures.append(
            ShadowFigures(
                settings=shadows[0].settings,
                passes=passes,
                full_pass_share=full / passes,
                macs_share=macs / sum(shadow.totals.decoder_macs_full for shadow in shadows),
                error_m=float(np.mean([e for shadow in shadows for e in shadow.errors_m])),
                error_rad=float(np.mean([e for shadow in shadows for e in shadow.errors_rad])),
                bias_m=float(np.mean(biases)) if biases else None,
                residuals=tuple(r for shadow in shadows for r in shadow.residuals),
            )
        )
    return figures


class ShadowPolicy:
    """Plays the unpruned plan, and lets other methods plan on the same observations.

    Every method has a memory of its own, which is cleared when the runtime clears the leader's.

    Attributes:
        shadows: The other methods, in the order given.
    """

    def __init__(
        self, policy: Policy, methods: Sequence[PruningSettings], *, executed: int
    ) -> None:
        """Wrap a policy.

        Args:
            policy: The policy; it is run once for the leader and once for every method.
            methods: What to compare.
            executed: Actions of a plan that are played and compared.
        """
        self.shadows = [Shadow(settings) for settings in methods]
        self._policy = policy
        self._executed = executed

    @property
    def spec(self) -> PolicySpec:
        """What the policy's directory says about itself."""
        return self._policy.spec

    def new_episode(self) -> EpisodeMemory:
        """Return empty memories, for the leader and every method."""
        new = self._policy.new_episode
        return _Memories(new(), [new() for _ in self.shadows])

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Run the leader with these settings and every method with its own; see ``types.Policy``.

        Raises:
            NonFiniteError: As the policy.
        """
        if not isinstance(memory, _Memories):
            msg = f'the memory must come from new_episode, got {type(memory).__name__}'
            raise TypeError(msg)
        leader = self._policy.infer(observation, memory.leader, pruning)
        for shadow, own in zip(self.shadows, memory.others, strict=True):
            chunk = self._policy.infer(observation, own, shadow.settings)
            shadow.add(chunk, leader, self._executed)
        return leader


class _Memories:
    def __init__(self, leader: EpisodeMemory, others: list[EpisodeMemory]) -> None:
        self.leader, self.others = leader, others

    @property
    def reference_stamp_s(self) -> float | None:
        return self.leader.reference_stamp_s

    def clear(self, reason: str) -> None:
        for memory in (self.leader, *self.others):
            memory.clear(reason)


def _biases(differences_m: list[Float64Array]) -> list[float]:
    """Lengths of the means over every ``BIAS_PASSES`` consecutive differences."""
    if len(differences_m) < BIAS_PASSES:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(np.stack(differences_m), BIAS_PASSES, axis=0)
    return [float(length) for length in np.linalg.norm(windows.mean(axis=2), axis=1)]
