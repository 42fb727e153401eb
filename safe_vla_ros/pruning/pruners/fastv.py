"""FastV (arXiv 2403.06764): the last row's attention at layer K-1, without any memory."""

from __future__ import annotations

from torch import Tensor

from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pruner import PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count, top_tokens
from safe_vla_ros.types import LAST_ROW


class FastVPruner:
    """Keeps the M tokens that the last row attends to most at layer K-1."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step that reads one layer."""
        return _FastVStep(step, episode)


class _FastVStep:
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        self._shallow = plan_layers(step.settings, step.num_layers).shallow
        self._signature = step.signature()
        self._total = len(step.tokens)
        self._count = kept_count(self._total, step.settings.keep_ratio)
        self._episode = episode
        self._scores: Tensor | None = None

    def rows_at(self, layer: int) -> str | None:
        return LAST_ROW if layer == self._shallow else None

    def observe(self, layer: int, saliency: Tensor) -> None:  # noqa: ARG002
        self._scores = saliency

    def select(self) -> Tensor | None:
        if self._scores is None or self._count == self._total:
            return None
        return top_tokens(self._scores, self._count)

    def finish(self) -> StepReport:
        self._episode.advance(self._signature)
        return StepReport(scores=self._scores)
