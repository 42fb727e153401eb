"""A policy that hears another sentence than the task's, to find out whether it listens."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safe_vla_ros.types import (
        ActionChunk,
        EpisodeMemory,
        Observation,
        Policy,
        PolicySpec,
        PruningSettings,
    )


class RetoldPolicy:
    """Another policy, told the same sentence whatever the instruction is.

    The sentence may be empty, which halts a robot before a policy hears it.
    """

    def __init__(self, policy: Policy, sentence: str) -> None:
        self._policy = policy
        self._sentence = sentence

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
        """Let the other policy act on the sentence."""
        return self._policy.infer(replace(observation, instruction=self._sentence), memory, pruning)
