"""SparseVLM (arXiv 2410.04417): what the words that speak of the image attend to.

Raters are the text tokens that match the image (before layer 0, from embeddings alone); the score
of a visual token is the mean attention, at layer K-1, that it gets from them. The M best go on.
This is the form in which the method is used for VLAs: one selection with a fixed budget. The
paper's rank decides how many go, at several layers; a number that depends on data would give every
step other shapes. Recycled tokens, which newer versions of the published code have given up, are
left out; ``merge`` shows what stand-ins for dropped tokens are worth.

Memory: none. Cost: K (4nd^2 + 2n^2 d + 3ndm) with all n rows, L - K times with what is kept; N T d
for the raters and T n d for their attention, T text tokens.
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
from safe_vla_ros.types import TEXT_ROWS


class SparseVlmPruner:
    """Keeps the M tokens that the raters attend to most at layer K-1."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Choose the raters."""
        return _SparseVlmStep(step, episode)


class _SparseVlmStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        layers = plan_layers(step.settings, step.num_layers)
        total = step.layout.total
        self._raters = rater_weights(step.tokens, step.text)
        self._count = kept_count(total, step.settings.keep_ratio)
        self._signature = step.signature()
        self._episode = episode
        self._scores: Tensor | None = None
        self.plan = PassPlan(
            taps={layers.shallow: Tap(TEXT_ROWS, self._rate)},
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

    def _rate(self, probabilities: Tensor, columns: slice) -> Tensor:
        return self._raters @ probabilities[..., columns].mean(dim=0)


def rater_weights(visual: Tensor, text: Tensor) -> Tensor:
    """Choose the raters: text tokens that match the image at least as well as the mean one.

    R = softmax over text of X_v X_t^T, without scaling; a text token's weight is the mean of R over
    the visual tokens; raters are those not below the mean weight 1 / T. (The published code takes
    those above it; with "not below" there is always one.)

    Args:
        visual: X_v, embeddings of the visual tokens before layer 0, [N, D].
        text: X_t, embeddings of the text tokens, [T, D].

    Returns:
        Equal weights of the raters and 0 elsewhere, float32 [T]; 1 in sum.
    """
    match = (visual.float() @ text.float().T).softmax(dim=1).mean(dim=0)
    # The mean is 1 / T by definition; computed, it can exceed the largest of equal weights.
    raters = (match >= torch.minimum(match.mean(), match.max())).float()
    return raters / raters.sum()
