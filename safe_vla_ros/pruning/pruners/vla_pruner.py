"""VLA-Pruner (arXiv 2511.16449): tokens for understanding and for acting, without doubles.

Two scores: the mean attention of all rows at layer K-1 in this step, and a forecast of what the
action rows attend to in a middle layer, blended from the last three steps. The union of the M best
of either is cut down to M by greedy max-min distance of the projected tokens. Until three steps are
remembered nothing is dropped.

The newest of the three steps weighs most, as the paper says; the published code multiplies the
decay the other way round. The middle layer, 15 of 32 there, is L / 2 - 1 here, or K if that is
deeper. Tokens that were dropped enter the history with 0, so what is out tends to stay out.

Memory: 3 x N numbers. Cost: K (4nd^2 + 2n^2 d + 3ndm) with all n rows, L - K times with what is
kept, three full passes after every clearing; n^2 d for the attention of all rows, N^2 d for the
distances and M dependent passes over N numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.diversity import farthest_tokens
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.forecast import unit_tokens
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, Tap
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count
from safe_vla_ros.types import ALL_ROWS

WINDOW = 3
"""Steps whose action attention is remembered (w)."""

DECAY = 0.8
"""Weight of a step against the one after it."""


@dataclass(frozen=True)
class ActionHistory:
    """Action attention of the last steps.

    Attributes:
        attention: By step, oldest first, float32 [1..w, N]; 0 for tokens that were dropped.
        reason: Why the history was begun; also that of the further steps that fill it.
        stamp_s: Observation stamp of the newest unpruned step, seconds.
    """

    attention: Tensor
    reason: str
    stamp_s: float


class VlaPrunerPruner:
    """Keeps M diverse tokens among those that matter for meaning or for action."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Blend the history, if it is long enough."""
        return _VlaPrunerStep(step, episode)


class _VlaPrunerStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings, layout = step.settings, step.layout
        layers = plan_layers(settings, step.num_layers)
        self._shallow = layers.shallow
        self._middle = max(step.num_layers // 2 - 1, layers.pruning)
        self._signature = step.signature(layers.pruning, self._middle, settings.query_rows)
        self._step = step
        self._episode = episode
        self._reason = episode.refresh_reason(self._signature)
        self._history: ActionHistory | None = None
        if self._reason is None and isinstance(episode.reference, ActionHistory):
            self._history = episode.reference
            if len(self._history.attention) < WINDOW:
                self._reason = self._history.reason
        self._guide = None if self._reason else decayed_guide(self._remembered())
        self._answers: dict[int, Tensor] = {}
        self._count = kept_count(layout.total, settings.keep_ratio)
        prune = self._guide is not None and self._count < layout.total
        self.plan = PassPlan(
            taps={layers.shallow: Tap(ALL_ROWS), self._middle: Tap(settings.query_rows)},
            selections={layers.pruning: self._count} if prune else {},
        )

    def observe(self, layer: int, answer: Tensor) -> None:
        self._answers[layer] = answer

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        assert self._guide is not None
        relevant = relevant_tokens(self._answers[self._shallow], self._guide, self._count)
        tokens = unit_tokens(self._step.tokens)
        return Selection(farthest_tokens(tokens, self._count, relevant))

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        attention = self._answers[self._middle][None]
        if self._history is not None:
            attention = torch.cat([self._remembered(), attention])[-WINDOW:]
        if self._reason is not None:
            history = ActionHistory(attention, self._reason, self._step.stamp_s)
        else:
            assert self._history is not None
            history = replace(self._history, attention=attention)
        self._episode.remember(history, self._signature, self._reason)
        return StepReport(
            key_step=self._reason is not None,
            reason=self._reason,
            scores=self._answers[self._shallow] if self._guide is None else self._guide,
        )

    def _remembered(self) -> Tensor:
        assert self._history is not None
        return self._history.attention


def decayed_guide(history: Tensor, decay: float = DECAY) -> Tensor:
    """Blend the remembered action attention; the newest step weighs most.

    The published code multiplies the other way round, so that its oldest step weighs most; the
    paper says what is done here.

    Args:
        history: Action attention by step, oldest first, float32 [w, N].
        decay: Weight of a step against the one after it, 0..1.

    Returns:
        Sum of decay^age * attention, divided by its sum, float32 [N].
    """
    age = torch.arange(len(history) - 1, -1, -1, device=history.device)
    guide = (decay ** age.float()) @ history
    return guide / guide.sum().clamp(min=torch.finfo(guide.dtype).tiny)


def relevant_tokens(semantic: Tensor, guide: Tensor, count: int) -> Tensor:
    """Mark the union of the M best tokens of either score; equal scores go to the lower index.

    Args:
        semantic: Attention of all rows at layer K-1, float32 [N].
        guide: Forecast action attention, float32 [N].
        count: M.

    Returns:
        bool [N]; M to 2M are true.
    """
    best = [
        torch.sort(scores, descending=True, stable=True).indices[:count]
        for scores in (semantic, guide)
    ]
    union = torch.zeros(len(semantic), dtype=torch.bool, device=semantic.device)
    return union.index_fill(0, torch.cat(best), value=True)
