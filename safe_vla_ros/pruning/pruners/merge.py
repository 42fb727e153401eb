"""SAFE-Pruner whose dropped tokens leave coarse stand-ins.

Scores, key steps and memory are those of ``safe``. What it drops is pooled by place: at most 7 x 7
cells over each camera's grid, each the mean hidden state of its dropped tokens, at the mean of
their positions, with the logarithm of their number added to its attention score, so that it weighs
like all of them. That a decoder attends to a few hundred tokens' rough mean is better than to none
of it was found here; pooling the remainder by attention count is known from token merging (ToMe,
arXiv 2210.09461, proportional attention).

The C stand-ins come on top of the M tokens kept, at every keep ratio: compare it by
multiply-accumulates. Memory: that of ``safe``. Cost: K (4nd^2 + 2n^2 d + 3ndm) with all n rows,
L - K times with C rows more than ``safe`` keeps; C N d for the means.
"""

from __future__ import annotations

import torch

from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pass_plan import Selection, StandIns
from safe_vla_ros.pruning.pooling import pool_dropped, pooling_cells
from safe_vla_ros.pruning.pruner import PrunerStep, StepInput
from safe_vla_ros.pruning.pruners.safe import SafeStep


class MergePruner:
    """Prunes like ``safe`` and pools what it drops."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Match this step's tokens with the reference, if there is one."""
        return _MergeStep(step, episode)


class _MergeStep(SafeStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        super().__init__(step, episode)
        cells = pooling_cells(step.layout.grids)
        self._num_cells = max(cells) + 1
        self._cells = torch.tensor(cells, device=step.embeddings.device)

    def select(self, layer: int) -> Selection:
        kept = super().select(layer).kept
        return Selection(kept, StandIns(*pool_dropped(kept, self._cells, self._num_cells)))
