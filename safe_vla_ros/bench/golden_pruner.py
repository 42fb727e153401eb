"""A pruner for golden sets: keeps what it is told, and notes what every layer attends to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from safe_vla_ros.pruning import EpisodeState, PassPlan, Selection, StepInput, StepReport, Tap
from safe_vla_ros.pruning.pruner import BasicStep


class ToldPruner:
    """Prunes as told; implements ``pruning.Pruner``.

    Attributes:
        answers: What was read, by layer, float32 [N].
    """

    def __init__(
        self,
        *,
        kept: Tensor | None = None,
        layer: int = 0,
        taps: Mapping[int, Tap] | None = None,
    ) -> None:
        """Remember what to do.

        Args:
            kept: Visual indices kept, ascending int64 [M]; None keeps all.
            layer: K, the first layer that sees only these.
            taps: What to read, by layer.
        """
        selections = {} if kept is None else {layer: len(kept)}
        self._plan = PassPlan(taps=taps or {}, selections=selections)
        self._kept = kept
        self.answers: dict[int, Tensor] = {}

    def begin(self, step: StepInput, episode: EpisodeState) -> _ToldStep:  # noqa: ARG002
        """Start a step; the memory stays as it is."""
        total = step.layout.total
        kept = torch.arange(total) if self._kept is None else self._kept
        return _ToldStep(self._plan, kept.to(step.embeddings.device), self.answers)


class _ToldStep(BasicStep):
    def __init__(self, plan: PassPlan, kept: Tensor, answers: dict[int, Tensor]) -> None:
        self.plan = plan
        self._kept = kept
        self._answers = answers

    def observe(self, layer: int, answer: Tensor) -> None:
        self._answers[layer] = answer

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        return Selection(self._kept)

    def finish(self, context: object) -> StepReport:  # noqa: ARG002
        return StepReport()
