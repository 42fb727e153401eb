"""VLA-Cache (arXiv 2502.02175): still tokens keep their keys and values of the step before."""

from __future__ import annotations

import torch
from torch import Tensor


def stillness(tokens: Tensor, previous: Tensor) -> Tensor:
    """Compare every token with the token at the same place one step before.

    Args:
        tokens: Unit tokens of this step, float32 [N, D].
        previous: Unit tokens of the step before, float32 [N, D].

    Returns:
        Cosine, float32 [N].
    """
    return (tokens * previous).sum(dim=1)


def renewed_within(still: Tensor, relevance: Tensor, count: int) -> Tensor:
    """Choose what to compute with a fixed budget: the most changed and the most relevant, in turn.

    The union of the m tokens that changed most and the m most relevant ones, with m as large as
    the budget allows; when one place is left for two tokens of that rank, the changed one has it.

    Args:
        still: Cosine with the step before, float32 [N].
        relevance: Attention of the text rows in the step before, float32 [N].
        count: M, tokens to compute.

    Returns:
        Indices in ascending order, int64 [M].
    """
    changed = _ranks(still)
    relevant = _ranks(-relevance)
    order = torch.minimum(2 * changed, 2 * relevant + 1)
    return torch.sort(order, stable=True).indices[:count].sort().values


def reusable_tokens(
    still: Tensor, relevance: Tensor, *, threshold: float, most_still: int, most_relevant: int
) -> Tensor:
    """Mark what the published rule reuses: still tokens that are not task-relevant.

    Args:
        still: Cosine with the step before, float32 [N].
        relevance: Attention of the text rows in the step before, float32 [N].
        threshold: A token is still from this cosine on.
        most_still: How many may be still, the most similar first.
        most_relevant: How many are task-relevant, those with most attention.

    Returns:
        bool [N].
    """
    is_still = (still >= threshold) & (_ranks(-still) < most_still)
    return is_still & (_ranks(-relevance) >= most_relevant)


def _ranks(values: Tensor) -> Tensor:
    """Place of every value in ascending order, equal values by index, int64 [N]."""
    order = torch.sort(values, stable=True).indices
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
