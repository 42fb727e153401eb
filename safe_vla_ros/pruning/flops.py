"""Multiply-accumulates of a decoder as the paper counts them."""

from __future__ import annotations


def layer_macs(tokens: int, width: int, mlp_width: int, context: int | None = None) -> int:
    """Count one decoder layer: 4nd^2 + 2n^2 d + 3ndm (safe_pruner, Cost).

    Args:
        tokens: n, rows that the layer computes.
        width: d.
        mlp_width: m.
        context: Keys that each row attends to; n when None. Differs when a cache holds the past.

    Returns:
        Multiply-accumulates.
    """
    keys = tokens if context is None else context
    projections = 4 * tokens * width * width
    attention = 2 * tokens * keys * width
    mlp = 3 * tokens * width * mlp_width
    return projections + attention + mlp


def decoder_macs(
    full: int, kept: int, *, layer: int, num_layers: int, width: int, mlp_width: int
) -> int:
    """Count a pass whose layers from ``layer`` on see only the kept tokens.

    Args:
        full: Tokens before pruning.
        kept: Tokens after it; ``full`` on an unpruned pass.
        layer: K.
        num_layers: L.
        width: d.
        mlp_width: m.

    Returns:
        Multiply-accumulates of the L layers; embedding, final norm and head are not counted.
    """
    shallow = layer_macs(full, width, mlp_width)
    deep = layer_macs(kept, width, mlp_width)
    return layer * shallow + (num_layers - layer) * deep
