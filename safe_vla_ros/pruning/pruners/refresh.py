"""SAFE-Refresh: recompute what is salient and has changed, keep the keys and values of the rest.

Nothing leaves the context. Every step runs all layers on M visual tokens and on all others rows;
each row attends to the keys and values of every token, those that were not computed now as they
were stored last. Reusing the keys and values of static tokens is from VLA-Cache (arXiv 2502.02175);
one product as the score, a fixed number of tokens from the first layer on, renewal that comes round
to everything, and the residual that calls for a full pass are new here.

With v_i the visual token now, v'_i the one its keys were computed from, a_i its age in steps, and
S_i its saliency in the last step (mean over layers, heads and query rows):

    d_i     = |v_i - v'_i|
    score_i = S_i (d_i + w mean(d) a_i)
    R       = the M highest scores
    r       = sum over i not in R of S_i d_i / sum over i of S_i |v_i|;  r > tau: compute all

An attention output is wrong by the sum of a_i |dV_i| over the stale tokens, to first order; the
score estimates the summands and r the sum.

With ``forecast_moved`` a token whose content stood elsewhere in its camera takes over the stored
keys (turned to its position), values, age and saliency of that place first.

Cost of a pass: L (4 n d^2 + 2 n S d + 3 n d m) for n = M + T rows and S = N + T keys. Memory:
2 L S d numbers of keys and values (fewer with grouped-query attention), N d of tokens and 2 N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.layer_plan import rows_at, saliency_layers
from safe_vla_ros.pruning import host
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.forecast import match_tokens, unit_tokens
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, Tap
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count, top_tokens

_SMALLEST = 1e-12
"""Keeps a division by nothing at zero."""


@dataclass(frozen=True)
class RefreshReference:
    """What the keys and values of the context belong to.

    Attributes:
        tokens: v', the token that each one's keys were computed from, [N, D].
        ages: Steps since, float32 [N].
        saliency: S of the last step, float32 [N].
        stamp_s: Observation stamp of the newest full pass, seconds.
        step: Which step of the episode it was, from 0.
    """

    tokens: Tensor
    ages: Tensor
    saliency: Tensor
    stamp_s: float
    step: int


class RefreshPruner:
    """Renews M tokens in every layer and leaves the others as they were."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Choose the tokens to renew, or all of them when too much would stay stale."""
        return _RefreshStep(step, episode)


class _RefreshStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings = step.settings
        layers = saliency_layers(settings, step.num_layers)
        taps = {layer: Tap(rows_at(layer, settings.query_rows)) for layer in layers}
        self.plan = PassPlan(taps=taps, context=True)
        self._signature = step.signature(layers, settings.query_rows)
        self._step = step
        self._episode = episode
        self._reason = episode.refresh_reason(self._signature)
        self._reference: RefreshReference | None = None
        self._renewed: Tensor | None = None
        self._scores: Tensor | None = None
        self._residual: float | None = None
        self._saliency: list[Tensor] = []
        self._moved: Tensor | None = None
        reference = episode.reference
        if self._reason is None and isinstance(reference, RefreshReference):
            if settings.forecast_moved:
                reference = self._move(reference)
            self._choose(reference)
            self._reference = reference
            _, self.context = episode.take()

    def moved(self) -> Tensor:
        assert self._moved is not None
        return self._moved

    def observe(self, layer: int, answer: Tensor) -> None:  # noqa: ARG002
        self._saliency.append(answer)

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        assert self._renewed is not None
        return Selection(self._renewed)

    def finish(self, context: KeyValueContext | None) -> StepReport:
        saliency = torch.stack(self._saliency).mean(dim=0)
        tokens, old, renewed = self._step.tokens, self._reference, self._renewed
        if old is None or renewed is None:
            now = RefreshReference(
                tokens=tokens.clone(),
                ages=torch.zeros_like(saliency),
                saliency=saliency,
                stamp_s=self._step.stamp_s,
                step=self._episode.steps,
            )
        else:
            now = RefreshReference(
                tokens=old.tokens.index_copy_(0, renewed, tokens.index_select(0, renewed)),
                ages=(old.ages + 1.0).index_fill_(0, renewed, 0.0),
                saliency=saliency,
                stamp_s=old.stamp_s,
                step=old.step,
            )
        self._episode.remember(now, self._signature, self._reason, context)
        return StepReport(
            key_step=self._reason is not None,
            reason=self._reason,
            residual=self._residual,
            scores=saliency if self._reason is not None else self._scores,
            ages=now.ages,
        )

    def _move(self, old: RefreshReference) -> RefreshReference:
        """Let what has moved take its memory along."""
        cameras = self._step.layout.tokens_per_camera
        self._moved = source = moved_tokens(self._step.tokens, old.tokens, cameras)
        return replace(
            old,
            tokens=old.tokens.index_select(0, source),
            ages=old.ages.index_select(0, source),
            saliency=old.saliency.index_select(0, source),
        )

    def _choose(self, old: RefreshReference) -> None:
        """Score, select, and decide by the residual; the memory has not been touched yet."""
        settings, layout = self._step.settings, self._step.layout
        tokens = self._step.tokens
        change = token_change(tokens, old.tokens)
        seen = relative_change(change, layout.tokens_per_camera)
        self._scores = renewal_score(
            seen if settings.change_per_camera else change,
            old.ages,
            self._shuffled(old.saliency) if settings.refresh_score == 'shuffled' else old.saliency,
            age_weight=settings.age_weight,
            kind=settings.refresh_score,
        )
        count = kept_count(layout.total, settings.keep_ratio)
        if count == layout.total:
            self._residual = 0.0
            return
        renewed = top_tokens(self._scores, count)
        residual = stale_share(tokens, change, old.saliency, renewed)
        self._residual = host.read_number(residual)
        if not math.isfinite(self._residual):
            raise NonFiniteError('visual tokens: NaN or infinity; the memory was left as it was')
        if self._residual > settings.max_staleness > 0.0:
            self._reason = 'attention_shift'
            return
        self._renewed = renewed
        self.plan = replace(self.plan, selections={0: count}, moves=self._moved is not None)

    def _shuffled(self, saliency: Tensor) -> Tensor:
        """Give every token the saliency of another, drawn anew in each step."""
        generator = torch.Generator().manual_seed(self._step.settings.seed + self._episode.steps)
        order = torch.randperm(len(saliency), generator=generator)
        return saliency.index_select(0, order.to(saliency.device))


def token_change(tokens: Tensor, stored: Tensor) -> Tensor:
    """d_i = |v_i - v'_i|.

    Args:
        tokens: Visual tokens now, [N, D].
        stored: Those that the stored keys were computed from, [N, D].

    Returns:
        Distances, float32 [N].
    """
    distance: Tensor = torch.linalg.vector_norm(tokens.float() - stored.float(), dim=1)
    return distance


def moved_tokens(tokens: Tensor, stored: Tensor, tokens_per_camera: tuple[int, ...]) -> Tensor:
    """Find where in its camera the content of each token stood (safe_pruner, step 3).

    Args:
        tokens: Visual tokens now, [N, D].
        stored: Those that the stored keys were computed from, [N, D].
        tokens_per_camera: Visual tokens by camera, in order.

    Returns:
        Index of the most similar stored token of the same camera, int64 [N]; of the token itself
        where that is no nearer than what is stored in its own place.
    """
    cameras = list(tokens_per_camera)
    starts = accumulate(cameras[:-1], initial=0)
    matches = [
        match_tokens(unit_tokens(now), unit_tokens(before))[0] + start
        for now, before, start in zip(
            torch.split(tokens, cameras), torch.split(stored, cameras), starts, strict=True
        )
    ]
    match = torch.cat(matches)
    own = torch.arange(len(tokens), device=tokens.device)
    nearer = token_change(tokens, stored.index_select(0, match)) < token_change(tokens, stored)
    return torch.where(nearer, match, own)


def relative_change(change: Tensor, tokens_per_camera: tuple[int, ...]) -> Tensor:
    """Divide the change of every token by the mean change of its camera.

    Args:
        change: d, float32 [N].
        tokens_per_camera: Visual tokens by camera, in order.

    Returns:
        float32 [N] with mean one in every camera in which something changed.
    """
    parts = torch.split(change, list(tokens_per_camera))
    return torch.cat([part / part.mean().clamp_min(_SMALLEST) for part in parts])


def renewal_score(
    change: Tensor, ages: Tensor, saliency: Tensor, *, age_weight: float, kind: str
) -> Tensor:
    """Score the tokens; the highest are renewed.

    Args:
        change: d, float32 [N].
        ages: a, float32 [N].
        saliency: S of the last step, float32 [N].
        age_weight: w, what a step of age counts, in mean changes.
        kind: One of ``types.REFRESH_SCORES``: the product of saliency and aged change
            (``shuffled``: the same, with the saliency of other tokens), or one of its factors.

    Returns:
        float32 [N].
    """
    if kind == 'saliency':
        return saliency
    if kind == 'age':
        return ages
    aged = change + age_weight * change.mean() * ages
    return aged if kind == 'change' else saliency * aged


def stale_share(tokens: Tensor, change: Tensor, saliency: Tensor, renewed: Tensor) -> Tensor:
    """r, how much of what is attended to would stay stale.

    Args:
        tokens: Visual tokens now, [N, D].
        change: d, float32 [N].
        saliency: S of the last step, float32 [N].
        renewed: R, int64 [M].

    Returns:
        sum over i not in R of S_i d_i / sum over i of S_i |v_i|, float32 scalar tensor.
    """
    whole: Tensor = saliency * torch.linalg.vector_norm(tokens.float(), dim=1)
    stale = (saliency * change).index_fill(0, renewed, 0.0)
    return stale.sum() / whole.sum().clamp_min(_SMALLEST)
