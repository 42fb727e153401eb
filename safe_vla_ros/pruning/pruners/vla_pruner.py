"""VLA-Pruner (arXiv 2511.16449): tokens for understanding and for acting, without doubles."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 3
"""Steps whose action attention is remembered (w)."""

DECAY = 0.8
"""Weight of a step against the one after it."""


def decayed_guide(history: Tensor, decay: float = DECAY) -> Tensor:
    """Blend the remembered action attention; the newest step weighs most.

    The published code multiplies the other way round, so that its oldest step weighs most; the
    paper says what is done here.

    Args:
        history: Action attention by step, oldest first, float32 [w, N].
        decay: Weight of a step against the one after it, 0..1.

    Returns:
        Sum of decay^age * attention, divided by its sum, float32 [N].
    """
    age = torch.arange(len(history) - 1, -1, -1, device=history.device)
    guide = (decay ** age.float()) @ history
    return guide / guide.sum().clamp(min=torch.finfo(guide.dtype).tiny)


def relevant_tokens(semantic: Tensor, guide: Tensor, count: int) -> Tensor:
    """Mark the union of the M best tokens of either score; equal scores go to the lower index.

    Args:
        semantic: Attention of all rows at layer K-1, float32 [N].
        guide: Forecast action attention, float32 [N].
        count: M.

    Returns:
        bool [N]; M to 2M are true.
    """
    best = [
        torch.sort(scores, descending=True, stable=True).indices[:count]
        for scores in (semantic, guide)
    ]
    union = torch.zeros(len(semantic), dtype=torch.bool, device=semantic.device)
    return union.index_fill(0, torch.cat(best), value=True)
