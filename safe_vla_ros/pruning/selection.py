"""Which visual tokens go on, from their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def camera_quotas(tokens_per_camera: Sequence[int], count: int) -> tuple[int, ...]:
    """Divide a number of kept tokens among the cameras in proportion to their tokens.

    Largest remainders get what is left over; among equal ones the earlier camera.

    Args:
        tokens_per_camera: Tokens by camera, in order; N in sum.
        count: M, 0..N.

    Returns:
        Kept tokens by camera; M in sum, never more than the camera has.
    """
    total = sum(tokens_per_camera)
    shares = [divmod(tokens * count, total) for tokens in tokens_per_camera]
    quotas = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda camera: -shares[camera][1])
    for camera in by_remainder[: count - sum(quotas)]:
        quotas[camera] += 1
    return tuple(quotas)
