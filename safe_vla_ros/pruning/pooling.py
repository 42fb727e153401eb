"""Dropped tokens pooled by place: a few coarse stand-ins instead of nothing."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SIDE = 7
"""Cells along each side of a camera's grid, at most."""


@lru_cache(maxsize=16)
def pooling_cells(grids: tuple[tuple[int, int], ...], side: int = SIDE) -> tuple[int, ...]:
    """Lay cells over the grid of every camera.

    A grid gets ``side`` cells along each of its sides, but fewer where a cell would be narrower
    than two tokens: pooling single tokens would drop nothing.

    Args:
        grids: Rows and columns of tokens by camera.
        side: Cells along a side, at most.

    Returns:
        Cell of every visual token, cameras one after another; 0..C-1 without gaps.
    """
    cells: list[int] = []
    first = 0
    for rows, columns in grids:
        down, across = (max(1, min(side, length // 2)) for length in (rows, columns))
        cells += [
            first + row * down // rows * across + column * across // columns
            for row in range(rows)
            for column in range(columns)
        ]
        first += down * across
    return tuple(cells)


def pool_dropped(kept: Tensor, cells: Tensor, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pool the tokens that are not kept, cell by cell.

    Means are matrices and not sums by index: a GPU gives the same numbers every time. Nothing is
    read back to the host.

    Args:
        kept: Kept indices, int64 [M].
        cells: Cell of every token, int64 [N].
        num_cells: C.

    Returns:
        For each of C stand-ins: its tokens' shares in it, float32 [C, N], 0 throughout for a cell
        of which nothing was dropped; the logarithm of their number, float32 [C], -inf for such a
        cell; and the mean of their indices rounded half to even, int64 [C], N - 1 for such a cell
        (where a causal row sees something at least, and stays finite).
    """
    places = torch.arange(num_cells, device=cells.device)
    member = (cells == places[:, None]).float().index_fill(1, kept, 0.0)
    count = member.sum(dim=1)
    share = member / count.clamp(min=1.0)[:, None]
    index = (share * torch.arange(len(cells), device=cells.device)).sum(dim=1).round().long()
    return share, count.log(), index.masked_fill(count == 0.0, len(cells) - 1)
