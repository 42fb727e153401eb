"""VLA-Cache (arXiv 2502.02175): still tokens keep their keys and values of the step before.

The ancestor of ``refresh``. Nothing leaves the context: each step computes some visual tokens and
attends to the stored keys and values of the rest. A token is reused when it looks as before and is
not among those that the text rows attended to most in the step before, in a middle layer (15 of 32
there, L / 2 - 1 here).

- ``cache_rule: published``. Camera by camera, still are tokens under whose patch the pixels have a
  cosine of at least 0.996 with the step before, at most 150 of 256; relevant are the 100 of 256
  with most attention; reusable are still ones that are not relevant. They leave the computation at
  layers 2, 6, 9 and 11 of 32, the stillest first, more of them the lower a layer's attention
  entropy was in the step before. Layers before that run in full. Numbers depend on the images and
  are rounded to sixteenths of N, computing more, so that there are few shapes;
  ``pruning.keep_ratio`` does not apply. The entropy needs the whole attention matrix of every
  layer. A change slower than the threshold is never noticed. A policy that gives no pixels has its
  projected tokens compared.
- ``cache_rule: budget`` (default), for comparison at equal cost. M tokens are computed in all
  layers, the most changed and the most relevant in turn. A token that changed may have to wait, so
  each is compared with what its keys were computed from, not with the step before: what missed its
  turn would have no other. Compared are projected tokens (cosine): a token sees more than its
  patch, and a budget that goes by pixels leaves most of what changed as it was.

Only the first pass of an episode computes everything, and with a budget the share
``full_pass_share`` of the steps, spread evenly. The published code for OpenVLA-OFT compares every
image with itself, so that all tokens are still; here the step before is the step before.
``pruning.layer`` does not apply.

Memory: 2 L S d numbers of keys and values, N P of pixels or N d of tokens, 2 N + L more. Cost of a
layer: 4nd^2 + 2nSd + 3ndm with n = T + the tokens computed there over S = N + T keys; N P or N d
for the comparison; T S d for the attention of the text, with ``published`` L n S d for all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safe_vla_ros.pruning import host
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.forecast import unit_tokens
from safe_vla_ros.pruning.full_passes import is_full_pass
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection, Tap
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.saliency import mean_saliency
from safe_vla_ros.pruning.selection import kept_count
from safe_vla_ros.types import ALL_ROWS, TEXT_ROWS

THRESHOLD = 0.996
"""Cosine of the pixels from which a token is still."""

MOST_STILL, MOST_RELEVANT = 150 / 256, 100 / 256
"""Shares of a camera's tokens that may be still, and that are relevant."""

LEAVING = (2, 6, 9, 11)
"""Layers of 32 before which reusable tokens leave the computation."""

DAMPING = 0.55
"""How much of a rise from layer to layer counts in the share that is reused."""

SHAPES = 16
"""Different numbers of visual tokens that a layer can come to with the published rule."""


@dataclass(frozen=True)
class CacheMemory:
    """The step before.

    Attributes:
        pictures: What each visual token is compared with, unit vectors, float32 [N, P].
        relevance: Attention of the text rows, float32 [N].
        entropy: Mean entropy of the attention by layer, float32 [L]; with the published rule.
        ages: Steps since each token went through every layer, float32 [N].
        stamp_s: Observation stamp of the newest step that computed all of them, seconds.
    """

    pictures: Tensor
    relevance: Tensor
    entropy: Tensor | None
    ages: Tensor
    stamp_s: float


class VlaCachePruner:
    """Computes what changed or matters; the rest keeps its keys and values."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Compare with the step before, if there is one."""
        return _VlaCacheStep(step, episode)


class _VlaCacheStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        rule, layout = step.settings.cache_rule, step.layout
        self._published = rule == 'published'
        self._middle = max(step.num_layers // 2 - 1, 0)
        self._signature = step.signature(rule)
        self._step = step
        self._episode = episode
        self._reason = episode.refresh_reason(self._signature)
        pixels = step.patches if self._published else None
        self._pictures = unit_tokens(step.tokens if pixels is None else pixels())
        self._relevance: Tensor | None = None
        self._entropy: list[Tensor] = []
        self._ages = torch.zeros(layout.total, device=step.embeddings.device)
        self._stamp_s = step.stamp_s
        self._order: Tensor | None = None
        selections: dict[int, int] = {}
        if self._reason is None and isinstance(episode.reference, CacheMemory):
            memory = episode.reference
            self._order, selections = self._choose(memory)
            self._stamp_s = memory.stamp_s
            computed = self._order[: min(selections.values(), default=layout.total)]
            self._ages = (memory.ages + 1.0).index_fill(0, computed, 0.0)
            if not self._published:
                seen = self._pictures.index_select(0, computed)
                self._pictures = memory.pictures.index_copy(0, computed, seen)
            _, self.context = episode.take()
        taps = {self._middle: Tap(TEXT_ROWS)}
        if self._published:
            taps = {
                layer: Tap(ALL_ROWS, self._read_middle if layer == self._middle else read_entropy)
                for layer in range(step.num_layers)
            }
        self.plan = PassPlan(taps=taps, selections=selections, context=True)

    def observe(self, layer: int, answer: Tensor) -> None:
        if self._published:
            self._entropy.append(answer[0])
            answer = answer[1:]
        if layer == self._middle:
            self._relevance = answer

    def select(self, layer: int) -> Selection:
        assert self._order is not None
        return Selection(self._order[: self.plan.selections[layer]].sort().values)

    def finish(self, context: KeyValueContext | None) -> StepReport:
        assert self._relevance is not None
        memory = CacheMemory(
            pictures=self._pictures,
            relevance=self._relevance,
            entropy=torch.stack(self._entropy) if self._published else None,
            ages=self._ages,
            stamp_s=self._stamp_s,
        )
        self._episode.remember(memory, self._signature, self._reason, context)
        return StepReport(
            key_step=self._reason is not None,
            reason=self._reason,
            scores=self._relevance,
            ages=self._ages,
        )

    def _choose(self, memory: CacheMemory) -> tuple[Tensor, dict[int, int]]:
        """Order the tokens by need, and say how many are computed from which layer on."""
        total = self._step.layout.total
        still = stillness(self._pictures, memory.pictures)
        if memory.entropy is None:
            settings = self._step.settings
            count = kept_count(total, settings.keep_ratio)
            if is_full_pass(self._episode.steps, settings.full_pass_share):
                count = total
            order = order_by_need(still, memory.relevance)
            return order, {0: count} if count < total else {}
        cameras = list(self._step.layout.tokens_per_camera)
        reusable = torch.cat(
            [
                reusable_tokens(
                    one_still,
                    one_relevance,
                    threshold=THRESHOLD,
                    most_still=round(MOST_STILL * len(one_still)),
                    most_relevant=round(MOST_RELEVANT * len(one_still)),
                )
                for one_still, one_relevance in zip(
                    torch.split(still, cameras), torch.split(memory.relevance, cameras), strict=True
                )
            ]
        )
        # Reusable tokens stand behind all others (cosines differ by 2 at most), the stillest last.
        order = torch.sort(still + 4.0 * reusable, stable=True).indices
        numbers = host.read_numbers(torch.cat([reusable.sum()[None], memory.entropy]))
        return order, computed_by_layer(total, int(numbers[0]), reuse_shares(numbers[1:]))

    def _read_middle(self, probabilities: Tensor, columns: slice) -> Tensor:
        layout = self._step.layout
        text = layout.rows(TEXT_ROWS)
        assert text is not None
        rows = layout.place(text, probabilities.shape[1])
        relevance = mean_saliency(probabilities[None, :, rows], columns)[0]
        return torch.cat([read_entropy(probabilities, columns), relevance])


def stillness(pictures: Tensor, previous: Tensor) -> Tensor:
    """Compare what stands at every token's place with what stood there before.

    Args:
        pictures: Unit vectors of this step, float32 [N, P]; zero where all is black.
        previous: Unit vectors to compare with, float32 [N, P].

    Returns:
        Cosine, float32 [N]; exactly 1 where nothing changed, also where all is black.
    """
    return 1.0 - 0.5 * (pictures - previous).square().sum(dim=1)


def order_by_need(still: Tensor, relevance: Tensor) -> Tensor:
    """Put the most changed and the most relevant tokens first, in turn.

    The first M of the order are the union of the m tokens that changed most and the m most relevant
    ones, with m as large as M allows; the last place goes to the changed one.

    Args:
        still: Cosine from ``stillness``, float32 [N].
        relevance: Attention of the text rows in the step before, float32 [N].

    Returns:
        Permutation of 0..N-1, int64 [N]; equal values by index.
    """
    turn = torch.minimum(2 * _ranks(still), 2 * _ranks(-relevance) + 1)
    return torch.sort(turn, stable=True).indices


def reusable_tokens(
    still: Tensor, relevance: Tensor, *, threshold: float, most_still: int, most_relevant: int
) -> Tensor:
    """Mark what the published rule may reuse: still tokens that are not task-relevant.

    Args:
        still: Cosine from ``stillness``, float32 [N].
        relevance: Attention of the text rows in the step before, float32 [N].
        threshold: A token is still from this cosine on.
        most_still: How many may be still, the most similar first.
        most_relevant: How many are task-relevant, those with most attention.

    Returns:
        bool [N].
    """
    is_still = (still >= threshold) & (_ranks(-still) < most_still)
    return is_still & (_ranks(-relevance) >= most_relevant)


def read_entropy(probabilities: Tensor, columns: slice) -> Tensor:  # noqa: ARG001
    """Mean over rows of the entropy of the mean attention over heads, nats.

    Args:
        probabilities: float32 [H, R, S'].
        columns: Not needed.

    Returns:
        float32 [1].
    """
    entropy: Tensor = torch.special.entr(probabilities.mean(dim=0)).sum(dim=1)
    return entropy.mean()[None]


def reuse_shares(entropy: Sequence[float]) -> list[float]:
    """Say how much of what is reusable each layer reuses: all where attention is sharpest.

    Args:
        entropy: Mean attention entropy by layer.

    Returns:
        1 - entropy scaled to 0..1 over the layers, by layer; of a rise over the layer before only
        ``DAMPING`` counts.
    """
    low, high = min(entropy), max(entropy)
    if low == high:
        return [1.0] * len(entropy)
    shares: list[float] = []
    for value in entropy:
        share = (high - value) / (high - low)
        before = shares[-1] if shares else share
        shares.append(min(share, before + DAMPING * (share - before)))
    return shares


def computed_by_layer(total: int, reusable: int, shares: Sequence[float]) -> dict[int, int]:
    """Turn shares into numbers of computed visual tokens; what has left does not come back.

    Args:
        total: N.
        reusable: How many may be reused.
        shares: By layer, 0..1.

    Returns:
        Tokens that go on, by layer at which their number falls: ascending layers, descending
        numbers.
    """
    num_layers = len(shares)
    unit = -(-total // SHAPES)
    counts: dict[int, int] = {}
    left = total
    for layer in sorted({max(1, round(layer * num_layers / 32)) for layer in LEAVING}):
        if layer >= num_layers:
            break
        count = total - int(shares[layer] * reusable) // unit * unit
        if count < left:
            counts[layer] = left = count
    return counts


def _ranks(values: Tensor) -> Tensor:
    """Place of every value in ascending order, equal values by index, int64 [N]."""
    order = torch.sort(values, stable=True).indices
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
