"""Shallow saliency of this step and forecast deep saliency, made into one score.

No batch dimension.
"""

from __future__ import annotations

from torch import Tensor

from safe_vla_ros.types import REFERENCE


def fuse(shallow: Tensor, forecast: Tensor, *, mode: str, weight: float) -> Tensor:
    """Score the visual tokens (safe_pruner, Two modes).

    Args:
        shallow: S of layer K-1, float32 [N].
        forecast: Shat of the layers that the mode averages, float32 [A, N]: L_D for ``paper``,
            every remembered layer for ``reference``.
        mode: ``paper`` for (1 - weight) S + weight mean(Shat), ``reference`` for
            S + weight mean(Shat).
        weight: lambda.

    Returns:
        Fused score, float32 [N].
    """
    mean = forecast.mean(dim=0)
    if mode == REFERENCE:
        return shallow + weight * mean
    return (1.0 - weight) * shallow + weight * mean
