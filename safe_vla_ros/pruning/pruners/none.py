"""No pruning: every token goes through every layer."""

from __future__ import annotations

from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport


class NonePruner:
    """Keeps all visual tokens."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step that reads nothing."""
        return _NoneStep(step, episode)


class _NoneStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        self._signature = step.signature()
        self._episode = episode

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        self._episode.advance(self._signature)
        return StepReport()
