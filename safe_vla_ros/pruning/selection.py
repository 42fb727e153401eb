"""Which visual tokens go on, from their scores."""

from __future__ import annotations

import torch
from torch import Tensor


def kept_count(total: int, keep_ratio: float) -> int:
    """Number of visual tokens kept: M = round(N * keep_ratio), half to even.

    The ratio is used as given. From a pruning ratio r pass ``1 - r`` as computed, not a rounded
    figure: at r = 0.7 and N = 15, ``1 - 0.7`` keeps 5 tokens and ``0.3`` keeps 4.

    Args:
        total: N.
        keep_ratio: Share kept, 0..1.

    Returns:
        M, 0..N.
    """
    return round(total * keep_ratio)


def top_tokens(scores: Tensor, count: int) -> Tensor:
    """Take the highest scores; among equal ones the lower index wins.

    Args:
        scores: Finite scores, float32 [N]; no batch dimension.
        count: M.

    Returns:
        Kept indices in ascending order, int64 [M].
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    return order[:count].sort().values
