"""The deep attention of this very step: what a perfect forecast of it would keep. For studies only.

Every step runs twice, in full to read the attention of ``pruning.forecast_layers`` and then pruned
at layer K by it, so it is slower than not pruning and no robot gains anything from it. It bounds
what methods can reach that forecast this attention, and shows which tokens they miss.

Memory: none. Cost: L (4nd^2 + 2n^2 d + 3ndm) with all n rows for the first pass; K times with all
and L - K times with the kept rows for the second.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, Tap
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count, top_tokens


class OraclePruner:
    """Keeps the M tokens with most deep attention in this step."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step whose first pass reads."""
        return _OracleStep(step, episode)


class _OracleStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings = step.settings
        layers = plan_layers(settings, step.num_layers)
        total = step.layout.total
        self._count = kept_count(total, settings.keep_ratio)
        self._signature = step.signature()
        self._episode = episode
        self._deep: list[Tensor] = []
        read = layers.remembered[layers.averaged]
        self.plan = PassPlan(
            probe={layer: Tap(step.layout.early(layers.rows_at(layer))) for layer in read},
            selections={layers.pruning: self._count} if self._count < total else {},
        )

    def observe(self, layer: int, answer: Tensor) -> None:  # noqa: ARG002
        self._deep.append(answer)

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        return Selection(top_tokens(self._scores(), self._count))

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        self._episode.advance(self._signature)
        return StepReport(scores=self._scores())

    def _scores(self) -> Tensor:
        return torch.stack(self._deep).mean(dim=0)
