"""Where the time of a replay goes."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safe_vla_ros.types import (
        ActionChunk,
        EpisodeMemory,
        Observation,
        Policy,
        PolicySpec,
        PruningSettings,
    )


class SectionTimer:
    """Adds up wall-clock time by section; a section inside another counts for itself only.

    Attributes:
        seconds: Time by section.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._inner_s = 0.0

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Measure a section."""
        outer_s, self._inner_s = self._inner_s, 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            passed_s = time.perf_counter() - begin
            self.seconds[name] += passed_s - self._inner_s  # type: ignore[assignment]
            self._inner_s = outer_s + passed_s


class TimedPolicy:
    """A policy whose inferences are measured in the section ``model``."""

    def __init__(self, policy: Policy, stopwatch: SectionTimer) -> None:
        self._policy = policy
        self._stopwatch = stopwatch

    @property
    def spec(self) -> PolicySpec:
        """What the policy says about itself."""
        return self._policy.spec

    def new_episode(self) -> EpisodeMemory:
        """Return an empty memory."""
        return self._policy.new_episode()

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Run the model once, measured."""
        with self._stopwatch.section('model'):
            return self._policy.infer(observation, memory, pruning)
