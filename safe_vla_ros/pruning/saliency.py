"""How much attention each visual token gets from the query rows of one layer."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_saliency(
    query: Tensor,
    key: Tensor,
    *,
    columns: slice,
    scaling: float,
    bias: Tensor | None = None,
) -> Tensor:
    """Mean attention probability of the visual columns (safe_pruner, Notation: S^l).

    One thin matmul: the whole attention matrix is never formed. Scores, softmax and mean are
    float32 whatever the model's dtype, and the softmax runs over all keys a row may attend to.

    Args:
        query: Rotated queries of the rows that are asked, [B, H, R, d].
        key: Rotated keys, [B, G, S, d]; G divides H (grouped-query attention).
        columns: Visual columns among the S keys, N of them.
        scaling: Factor on the scores, usually 1 / sqrt(d).
        bias: Added to the scaled scores, broadcastable to [B, H, R, S]; -inf forbids a key.

    Returns:
        Saliency, float32 [B, N]; not renormalised.
    """
    batch, heads, rows, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    grouped = query.float().reshape(batch, groups, heads // groups * rows, width)
    scores = torch.matmul(grouped * scaling, key.float().transpose(2, 3))
    scores = scores.view(batch, heads, rows, keys)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(dim=-1)[..., columns].mean(dim=(1, 2))
