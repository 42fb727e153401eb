"""Tokens that differ most from each other: greedy max-min selection, no batch dimension."""

from __future__ import annotations

import torch
from torch import Tensor

BEHIND = 4.0
"""More than any two cosine distances can differ: puts other tokens behind every candidate."""


def farthest_tokens(tokens: Tensor, count: int, candidates: Tensor | None = None) -> Tensor:
    """Choose tokens so that each is far from those chosen before (DivPrune, arXiv 2503.02175).

    The distance is 1 - cosine. The first choice is the token with the farthest nearest neighbour
    (the lower of two that are each other's); each further one maximises the distance to the nearest
    chosen token. Equal distances go to the lower index. Costs N^2 D multiply-accumulates and
    ``count`` passes over N numbers; nothing is read back to the host.

    Args:
        tokens: Unit vectors, float32 [N, D].
        count: M, 1..N.
        candidates: Which tokens may be chosen, bool [N], and the only ones that count as
            neighbours of the first; None for all. Other tokens fill up only when fewer than M
            are candidates.

    Returns:
        Chosen indices in ascending order, int64 [M].
    """
    total = len(tokens)
    distance = 1.0 - tokens @ tokens.T
    distance = torch.maximum(distance, distance.T)  # a matmul may round the two halves differently
    neighbour = torch.eye(total, dtype=torch.bool, device=tokens.device)
    handicap = torch.zeros(total, device=tokens.device)
    if candidates is not None:
        neighbour = neighbour | ~candidates
        handicap = handicap.masked_fill(~candidates, BEHIND)
    # Infinity when a candidate has no neighbour at all: the largest number keeps the handicap.
    lonely = torch.finfo(distance.dtype).max
    nearest = distance.masked_fill(neighbour, lonely).min(dim=1).values.clamp(max=BEHIND / 2)
    chosen: list[Tensor] = []
    taken = torch.zeros(total, device=tokens.device)
    for _ in range(count):
        pick = (nearest - handicap + taken).argmax(dim=0, keepdim=True)
        taken = taken.index_fill(0, pick, -torch.inf)
        row = distance.index_select(0, pick)[0]
        nearest = row if not chosen else torch.minimum(nearest, row)
        chosen.append(pick)
    return torch.cat(chosen).sort().values
