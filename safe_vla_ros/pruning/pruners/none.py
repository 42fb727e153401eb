"""No pruning: every token goes through every layer."""

from __future__ import annotations

from torch import Tensor

from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pruner import PrunerStep, StepInput, StepReport


class NonePruner:
    """Keeps all visual tokens."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step that reads nothing."""
        return _NoneStep(step, episode)


class _NoneStep:
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        self._signature = step.signature()
        self._episode = episode

    def rows_at(self, layer: int) -> str | None:  # noqa: ARG002
        return None

    def observe(self, layer: int, saliency: Tensor) -> None:
        """Nothing is read."""

    def select(self) -> Tensor | None:
        return None

    def finish(self) -> StepReport:
        self._episode.advance(self._signature)
        return StepReport()
