"""The pixels under each visual token."""

from __future__ import annotations

import torch


def image_patches(images: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Cut images along their grid of visual tokens.

    Args:
        images: [..., C, H, W], any dtype; what is left over at the right and the bottom when H or W
            is no multiple of the grid is not seen.
        rows: Rows of the grid.
        columns: Columns.

    Returns:
        [..., rows * columns, C * (H // rows) * (W // columns)] of the same dtype, row by row.
    """
    *leading, channels, height, width = images.shape
    high, wide = height // rows, width // columns
    cut = images[..., : rows * high, : columns * wide]
    split = cut.reshape(*leading, channels, rows, high, columns, wide)
    # [..., C, rows, high, columns, wide] to [..., rows, columns, C, high, wide]
    moved = split.movedim((-4, -2), (-5, -4))
    return moved.reshape(*leading, rows * columns, channels * high * wide)
