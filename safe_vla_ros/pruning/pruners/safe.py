"""SAFE-Pruner (arXiv 2605.29662): shallow saliency fused with a forecast of deep saliency."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.episode import EpisodeState, SaliencyReference
from safe_vla_ros.pruning.forecast import (
    forecast_saliency,
    match_tokens,
    saliency_similarity,
    unit_tokens,
)
from safe_vla_ros.pruning.fusion import fuse
from safe_vla_ros.pruning.pruner import PrunerStep, SafeTrace, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count, top_tokens


class SafePruner:
    """Prunes with a forecast, and renews the reference when the forecast has gone stale."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Match this step's tokens with the reference, if there is one."""
        return _SafeStep(step, episode)


class _SafeStep:
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings = step.settings
        self._plan = plan = plan_layers(settings, step.num_layers)
        self._signature = step.signature(
            plan.pruning, plan.refresh, plan.remembered, settings.fusion, settings.query_rows
        )
        self._step = step
        self._episode = episode
        self._tokens = unit_tokens(step.tokens)
        self._reason = episode.refresh_reason(self._signature)
        self._similarity: float | None = None
        self._saliency: dict[int, Tensor] = {}
        self._scores: Tensor | None = None
        self._match: tuple[Tensor, Tensor] | None = None
        self._forecast: Tensor | None = None
        reference = episode.reference
        if self._reason is None and reference is not None:
            self._match = match_tokens(self._tokens, reference.tokens)
            self._forecast = forecast_saliency(reference.saliency, self._match[0])

    def rows_at(self, layer: int) -> str | None:
        plan = self._plan
        undecided = self._similarity is None
        may_store = layer in plan.remembered and (undecided or self._reason is not None)
        if layer in (plan.refresh, plan.shallow) or may_store:
            return plan.rows_at(layer)
        return None

    def observe(self, layer: int, saliency: Tensor) -> None:
        self._saliency[layer] = saliency
        if layer != self._plan.refresh or self._forecast is None:
            return
        place = self._plan.remembered.index(layer)
        self._similarity = saliency_similarity(saliency, self._forecast[place]).item()
        if not math.isfinite(self._similarity):
            tokens_finite = bool(torch.isfinite(self._step.tokens).all())
            where = f'attention of decoder layer {layer}' if tokens_finite else 'visual tokens'
            raise NonFiniteError(f'{where}: NaN or infinity; the reference was left as it was')
        if self._similarity < self._step.settings.refresh_threshold:
            self._reason = 'attention_shift'

    def select(self) -> Tensor | None:
        shallow = self._saliency[self._plan.shallow]
        if self._reason is not None or self._forecast is None:
            self._scores = shallow
            return None
        settings = self._step.settings
        self._scores = fuse(
            shallow,
            self._forecast[self._plan.averaged],
            mode=settings.fusion,
            weight=settings.fusion_weight,
        )
        count = kept_count(len(shallow), settings.keep_ratio)
        return None if count == len(shallow) else top_tokens(self._scores, count)

    def finish(self) -> StepReport:
        plan = self._plan
        if self._reason is None:
            self._episode.advance(self._signature)
        else:
            reference = SaliencyReference(
                tokens=self._tokens,
                saliency=torch.stack([self._saliency[layer] for layer in plan.remembered]),
                layers=plan.remembered,
                stamp_s=self._step.stamp_s,
                step=self._episode.steps,
            )
            self._episode.remember(reference, self._signature, self._reason)
        match_index, match_score = self._match or (None, None)
        trace = SafeTrace(plan.remembered, match_index, match_score, self._forecast, self._saliency)
        return StepReport(
            key_step=self._reason is not None,
            reason=self._reason,
            similarity=self._similarity,
            scores=self._scores,
            trace=trace,
        )
