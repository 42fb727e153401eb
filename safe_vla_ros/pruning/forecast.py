"""Correspondence between two steps and the saliency it carries over; no batch dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_tokens(tokens: Tensor) -> Tensor:
    """Scale every token to length one in float32.

    Args:
        tokens: Projected visual tokens [N, D], any floating dtype.

    Returns:
        Unit vectors, float32 [N, D]; a zero token stays zero.
    """
    return torch.nn.functional.normalize(tokens.float(), dim=-1)


def match_tokens(current: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Find for every current token the most similar reference token.

    c(i) = argmax_j cos(v_t[i], v_ref[j]) over all cameras together (safe_pruner, step 3).

    Args:
        current: Unit tokens of this step, float32 [N, D].
        reference: Unit tokens of the key step, float32 [N', D].

    Returns:
        Index into the reference, int64 [N], and the cosine, float32 [N].
    """
    cosine, index = torch.matmul(current, reference.T).max(dim=1)
    return index, cosine


def match_places(current: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Pair every token with the one at its place: the control for ``match_tokens``.

    Args:
        current: Unit tokens of this step, float32 [N, D].
        reference: Unit tokens of the key step, float32 [N, D].

    Returns:
        0..N-1, int64 [N], and the cosine of each pair, float32 [N].
    """
    index = torch.arange(len(current), device=current.device)
    return index, (current * reference).sum(dim=1)


def forecast_saliency(saliency: Tensor, match: Tensor) -> Tensor:
    """Carry saliency of the key step over to the current tokens.

    Args:
        saliency: S_ref of A layers, float32 [A, N'].
        match: Correspondence c, int64 [N].

    Returns:
        Shat, float32 [A, N].
    """
    return saliency.index_select(1, match)


def saliency_similarity(saliency: Tensor, forecast: Tensor) -> Tensor:
    """Cosine of a saliency and its forecast (safe_pruner, step 4: kappa).

    Args:
        saliency: S at the refresh layer, float32 [N].
        forecast: Shat at the refresh layer, float32 [N].

    Returns:
        kappa, float32 scalar tensor; NaN when either holds NaN.
    """
    return torch.nn.functional.cosine_similarity(saliency, forecast, dim=0)
