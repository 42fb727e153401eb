"""How much attention each visual token gets from the query rows of one layer."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_probabilities(
    query: Tensor, key: Tensor, *, scaling: float, bias: Tensor | None = None
) -> Tensor:
    """Attention of a few rows.

    One thin matmul: the whole attention matrix is never formed. Scores and softmax are float32
    whatever the model's dtype, and the softmax runs over all keys a row may attend to.

    Args:
        query: Rotated queries of the rows that are asked, [B, H, R, d].
        key: Rotated keys, [B, G, S, d]; G divides H (grouped-query attention).
        scaling: Factor on the scores, usually 1 / sqrt(d).
        bias: Added to the scaled scores, broadcastable to [B, H, R, S]; -inf forbids a key.

    Returns:
        Probabilities, float32 [B, H, R, S].
    """
    batch, heads, rows, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    grouped = query.float().reshape(batch, groups, heads // groups * rows, width)
    scores = torch.matmul(grouped * scaling, key.float().transpose(2, 3))
    scores = scores.view(batch, heads, rows, keys)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1)


def attention_saliency(
    query: Tensor,
    key: Tensor,
    *,
    columns: slice,
    scaling: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean attention probability of the visual columns (safe_pruner, Notation: S^l).

    Args:
        query: Rotated queries of the rows that are asked, [B, H, R, d].
        key: Rotated keys, [B, G, S, d].
        columns: Visual columns among the S keys, N of them.
        scaling: Factor on the scores.
        bias: Added to the scaled scores; see ``attention_probabilities``.

    Returns:
        Saliency, float32 [B, N]; not renormalised.
    """
    return mean_saliency(attention_probabilities(query, key, scaling=scaling, bias=bias), columns)


def mean_saliency(probabilities: Tensor, columns: slice) -> Tensor:
    """Mean over heads and rows of probabilities [B, H, R, S] at some columns, float32 [B, N]."""
    return probabilities[..., columns].mean(dim=(1, 2))
