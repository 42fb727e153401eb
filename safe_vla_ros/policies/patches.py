"""The pixels under each visual token, for methods that compare images."""

from __future__ import annotations

import torch


def image_patches(image: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Cut an image along its grid of visual tokens.

    Args:
        image: [C, H, W], any dtype; what is left over at the right and the bottom when H or W is no
            multiple of the grid is not seen.
        rows: Rows of the grid.
        columns: Columns.

    Returns:
        float32 [rows * columns, C * (H // rows) * (W // columns)], row by row.
    """
    channels, height, width = image.shape
    high, wide = height // rows, width // columns
    cut = image[:, : rows * high, : columns * wide].float()
    split = cut.reshape(channels, rows, high, columns, wide)
    return split.permute(1, 3, 0, 2, 4).reshape(rows * columns, channels * high * wide)
