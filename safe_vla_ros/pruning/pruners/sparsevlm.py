"""SparseVLM (arXiv 2410.04417): what the words that speak of the image attend to."""

from __future__ import annotations

import torch
from torch import Tensor


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
