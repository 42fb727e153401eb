"""Multiply-accumulates of a decoder as the paper counts them."""

from __future__ import annotations

from collections.abc import Iterable


def layer_macs(tokens: int, width: int, mlp_width: int, context: int | None = None) -> int:
    """Count one decoder layer: 4nd^2 + 2n^2 d + 3ndm (safe_pruner, Cost).

    Args:
        tokens: n, rows that the layer computes.
        width: d.
        mlp_width: m.
        context: Keys that each row attends to; n when None. Differs when keys are stored.

    Returns:
        Multiply-accumulates.
    """
    keys = tokens if context is None else context
    projections = 4 * tokens * width * width
    attention = 2 * tokens * keys * width
    mlp = 3 * tokens * width * mlp_width
    return projections + attention + mlp


def pass_macs(layers: Iterable[tuple[int, int]], *, width: int, mlp_width: int) -> int:
    """Count a pass as it was executed.

    Args:
        layers: Rows computed and keys attended to, layer by layer.
        width: d.
        mlp_width: m.

    Returns:
        Multiply-accumulates of the layers; embedding, final norm and head are not counted.
    """
    return sum(layer_macs(rows, width, mlp_width, context=keys) for rows, keys in layers)
