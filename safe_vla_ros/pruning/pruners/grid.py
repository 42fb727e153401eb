"""Ordered dither: an even pattern that moves on with every step, whatever the images show."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=16)
def dither_order(rows: int, columns: int) -> tuple[int, ...]:
    """Order the cells of a grid so that every run of consecutive ones lies spread over it.

    The threshold matrix of Bayer: the bits of row and column, interleaved and read backwards. A
    grid that is no power of two takes its part of the next larger matrix.

    Args:
        rows: Rows of the grid.
        columns: Columns.

    Returns:
        Row-major cell numbers, a permutation of 0..rows * columns - 1.
    """
    bits = max(rows - 1, columns - 1).bit_length()

    def threshold(cell: int) -> int:
        row, column = divmod(cell, columns)
        rank = 0
        for bit in range(bits):
            rank = rank << 2 | ((row ^ column) >> bit & 1) << 1 | row >> bit & 1
        return rank

    return tuple(sorted(range(rows * columns), key=threshold))


def dithered_cells(rows: int, columns: int, count: int, step: int) -> list[int]:
    """Take the next ``count`` cells of the order at every step, around its end.

    Args:
        rows: Rows of the grid.
        columns: Columns.
        count: Cells wanted, 0..rows * columns.
        step: Which step of the episode it is, from 0.

    Returns:
        Row-major cell numbers, ascending. All cells have had their turn after
        ceil(rows * columns / count) steps.
    """
    order = dither_order(rows, columns)
    start = step * count
    return sorted(order[(start + place) % len(order)] for place in range(count))


def is_full_pass(step: int, share: float) -> bool:
    """Tell whether a step is one of the full passes that are spread evenly over the episode.

    Args:
        step: Which step of the episode it is, from 0.
        share: Share of the steps that run in full, 0..1.
    """
    return int((step + 1) * share) > int(step * share)
