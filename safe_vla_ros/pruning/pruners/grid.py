"""Ordered dither: an even pattern that moves on with every step, whatever the images show.

Keeps M tokens, shared among the cameras in proportion, and drops the rest before layer K. The
control for every method that looks at the images, and a better one than ``random``: as unbiased,
with less variance.

Memory: none but the number of the step. Cost: K (4nd^2 + 2n^2 d + 3ndm) with all n rows, then
the same L - K times with what is kept; choosing costs nothing.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.full_passes import is_full_pass
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import camera_quotas, kept_count


class GridPruner:
    """Keeps the next M cells of every camera's dither order.

    With ``full_pass_share`` that share of the steps, spread evenly, is left unpruned.
    """

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Choose the cells of this step."""
        plan_layers(step.settings, step.num_layers)
        return _GridStep(step, episode)


class _GridStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings, layout = step.settings, step.layout
        self._signature = step.signature()
        self._episode = episode
        count = kept_count(layout.total, settings.keep_ratio)
        if is_full_pass(episode.steps, settings.full_pass_share):
            count = layout.total
        if count == layout.total:
            return
        kept: list[int] = []
        first = 0
        quotas = camera_quotas(layout.tokens_per_camera, count)
        for (rows, columns), quota in zip(layout.grids, quotas, strict=True):
            kept += [first + cell for cell in dithered_cells(rows, columns, quota, episode.steps)]
            first += rows * columns
        self._kept = torch.tensor(kept, device=step.embeddings.device)
        self.plan = PassPlan(selections={settings.layer: count})

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        return Selection(self._kept)

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        self._episode.advance(self._signature)
        return StepReport()


@lru_cache(maxsize=16)
def dither_order(rows: int, columns: int) -> tuple[int, ...]:
    """Order the cells of a grid so that every run of consecutive ones lies spread over it.

    The threshold matrix of Bayer: the bits of row and column, interleaved and read backwards. A
    grid that is no power of two takes its part of the next larger matrix.

    Args:
        rows: Rows of the grid.
        columns: Columns.

    Returns:
        Row-major cell numbers, a permutation of 0..rows * columns - 1.
    """
    bits = max(rows - 1, columns - 1).bit_length()

    def threshold(cell: int) -> int:
        row, column = divmod(cell, columns)
        rank = 0
        for bit in range(bits):
            rank = rank << 2 | ((row ^ column) >> bit & 1) << 1 | row >> bit & 1
        return rank

    return tuple(sorted(range(rows * columns), key=threshold))


def dithered_cells(rows: int, columns: int, count: int, step: int) -> list[int]:
    """Take the next ``count`` cells of the order at every step, around its end.

    Args:
        rows: Rows of the grid.
        columns: Columns.
        count: Cells wanted, 0..rows * columns.
        step: Which step of the episode it is, from 0.

    Returns:
        Row-major cell numbers, ascending. All cells have had their turn after
        ceil(rows * columns / count) steps.
    """
    order = dither_order(rows, columns)
    start = step * count
    return sorted(order[(start + place) % len(order)] for place in range(count))
