"""Multiply-accumulates of a decoder as the paper counts them."""

from __future__ import annotations

from collections.abc import Iterable


def layer_macs(
    tokens: int,
    width: int,
    mlp_width: int,
    context: int | None = None,
    *,
    query_width: int | None = None,
    key_width: int | None = None,
) -> int:
    """Count one decoder layer: 4nd^2 + 2n^2 d + 3ndm (safe_pruner, Cost).

    Heads that share keys make it cheaper than the paper's formula, which is for as many keys as
    queries of width d together: 2ndq + 2ndk + 2n^2 q + 3ndm with queries of width q and keys of k.

    Args:
        tokens: n, rows that the layer computes.
        width: d.
        mlp_width: m.
        context: Keys that each row attends to; n when None. Differs when keys are stored.
        query_width: q, width of all heads' queries together; d when None.
        key_width: k, width of all heads' keys together; d when None.

    Returns:
        Multiply-accumulates.
    """
    keys = tokens if context is None else context
    query = width if query_width is None else query_width
    key = width if key_width is None else key_width
    projections = 2 * tokens * width * (query + key)
    attention = 2 * tokens * keys * query
    mlp = 3 * tokens * width * mlp_width
    return projections + attention + mlp


def pass_macs(
    layers: Iterable[tuple[int, int]],
    *,
    width: int,
    mlp_width: int,
    query_width: int | None = None,
    key_width: int | None = None,
) -> int:
    """Count a pass as it was executed.

    Args:
        layers: Rows computed and keys attended to, layer by layer.
        width: d.
        mlp_width: m.
        query_width: q, see ``layer_macs``.
        key_width: k, see ``layer_macs``.

    Returns:
        Multiply-accumulates of the layers; embedding, final norm and head are not counted.
    """
    return sum(
        layer_macs(
            rows, width, mlp_width, context=keys, query_width=query_width, key_width=key_width
        )
        for rows, keys in layers
    )
