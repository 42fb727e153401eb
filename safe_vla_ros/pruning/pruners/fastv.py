"""FastV (arXiv 2403.06764): the last row's attention at layer K-1, without any memory."""

from __future__ import annotations

from torch import Tensor

from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, Tap
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count, top_tokens
from safe_vla_ros.types import LAST_ROW


class FastVPruner:
    """Keeps the M tokens that the last row attends to most at layer K-1."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step that reads one layer."""
        return _FastVStep(step, episode)


class _FastVStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        layers = plan_layers(step.settings, step.num_layers)
        total = step.layout.total
        self._count = kept_count(total, step.settings.keep_ratio)
        self._signature = step.signature()
        self._episode = episode
        self._scores: Tensor | None = None
        self.plan = PassPlan(
            taps={layers.shallow: Tap(LAST_ROW)},
            selections={layers.pruning: self._count} if self._count < total else {},
        )

    def observe(self, layer: int, answer: Tensor) -> None:  # noqa: ARG002
        self._scores = answer

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        assert self._scores is not None
        return Selection(top_tokens(self._scores, self._count))

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        self._episode.advance(self._signature)
        return StepReport(scores=self._scores)
