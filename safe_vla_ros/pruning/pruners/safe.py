"""SAFE-Pruner (arXiv 2605.29662): shallow saliency fused with a forecast of deep saliency."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning import host
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState, SaliencyReference
from safe_vla_ros.pruning.forecast import (
    forecast_saliency,
    match_tokens,
    saliency_similarity,
    unit_tokens,
)
from safe_vla_ros.pruning.fusion import fuse
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, Tap
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, SafeTrace, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count, top_tokens


class SafePruner:
    """Prunes with a forecast, and renews the reference when the forecast has gone stale."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Match this step's tokens with the reference, if there is one."""
        return _SafeStep(step, episode)


class _SafeStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings, layout = step.settings, step.layout
        self._layers = layers = plan_layers(settings, step.num_layers)
        self._signature = step.signature(
            layers.pruning, layers.refresh, layers.remembered, settings.fusion, settings.query_rows
        )
        self._step = step
        self._episode = episode
        self._tokens = unit_tokens(step.tokens)
        self._reason = episode.refresh_reason(self._signature)
        self._similarity: float | None = None
        self._saliency: dict[int, Tensor] = {}
        self._fused: Tensor | None = None
        self._match: tuple[Tensor, Tensor] | None = None
        self._forecast: Tensor | None = None
        self._count = kept_count(layout.total, settings.keep_ratio)
        reference = episode.reference
        if self._reason is None and isinstance(reference, SaliencyReference):
            self._match = match_tokens(self._tokens, reference.tokens)
            self._forecast = forecast_saliency(reference.saliency, self._match[0])
            # Before the decision a layer of the memory is read in case the step turns out key.
            early = {layer for layer in layers.remembered if layer <= layers.refresh}
            self.plan = PassPlan(
                taps=self._taps({layers.shallow, *early}),
                selections={layers.pruning: self._count} if self._count < layout.total else {},
                decision=layers.refresh,
            )
        else:
            self.plan = self._key_plan()

    def observe(self, layer: int, answer: Tensor) -> None:
        self._saliency[layer] = answer

    def decide(self) -> PassPlan:
        layer, forecast = self._layers.refresh, self._forecast
        assert forecast is not None
        place = self._layers.remembered.index(layer)
        kappa = saliency_similarity(self._saliency[layer], forecast[place])
        self._similarity = host.read_number(kappa)
        if not math.isfinite(self._similarity):
            tokens_finite = bool(torch.isfinite(self._step.tokens).all())
            where = f'attention of decoder layer {layer}' if tokens_finite else 'visual tokens'
            raise NonFiniteError(f'{where}: NaN or infinity; the reference was left as it was')
        if self._similarity < self._step.settings.refresh_threshold:
            self._reason = 'attention_shift'
            self.plan = self._key_plan()
        return self.plan

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        return Selection(top_tokens(self._fuse(), self._count))

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        layers = self._layers
        if self._reason is None:
            scores = self._fuse()
            self._episode.advance(self._signature)
        else:
            scores = self._saliency[layers.shallow]
            reference = SaliencyReference(
                tokens=self._tokens,
                saliency=torch.stack([self._saliency[layer] for layer in layers.remembered]),
                layers=layers.remembered,
                stamp_s=self._step.stamp_s,
                step=self._episode.steps,
            )
            self._episode.remember(reference, self._signature, self._reason)
        match_index, match_score = self._match or (None, None)
        return StepReport(
            key_step=self._reason is not None,
            reason=self._reason,
            similarity=self._similarity,
            scores=scores,
            trace=SafeTrace(
                layers.remembered, match_index, match_score, self._forecast, self._saliency
            ),
        )

    def _key_plan(self) -> PassPlan:
        layers = self._layers
        return PassPlan(taps=self._taps({layers.shallow, layers.refresh, *layers.remembered}))

    def _taps(self, read: set[int]) -> dict[int, Tap]:
        """Read these layers; those that decide something within the pass at rows that are in it."""
        layers, layout = self._layers, self._step.layout
        taps = {}
        for layer in sorted(read):
            rows = layers.rows_at(layer)
            taps[layer] = Tap(layout.early(rows) if layer < layers.pruning else rows)
        return taps

    def _fuse(self) -> Tensor:
        if self._fused is None:
            assert self._forecast is not None
            settings = self._step.settings
            self._fused = fuse(
                self._saliency[self._layers.shallow],
                self._forecast[self._layers.averaged],
                mode=settings.fusion,
                weight=settings.fusion_weight,
            )
        return self._fused
