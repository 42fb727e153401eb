"""Camera images as pi0 and pi0.5 see them: fitted into a square, the rest padded, from -1 to 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from safe_vla_ros.policies.pi_options import ANTIALIASED, BLACK

if TYPE_CHECKING:
    from safe_vla_ros.types import UInt8Array


def fit_image(image: UInt8Array, size: int, *, resize: str, padding: int) -> torch.Tensor:
    """Fit an image into a square, its aspect ratio kept.

    Args:
        image: RGB, uint8 [H, W, 3].
        size: Side of the square, pixels.
        resize: ``bilinear`` or ``antialiased``, see ``PiOptions``.
        padding: Value of the border.

    Returns:
        Pixel values, float32 [3, size, size] from -1 to 1 (the border apart), centred; an odd pixel
        of the border is on the right or at the bottom.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return _scaled(image)
    ratio = max(height, width) / size
    rows, columns = int(height / ratio), int(width / ratio)
    top, left = (size - rows) // 2, (size - columns) // 2
    fitted = torch.full((3, size, size), float(padding))
    if resize == ANTIALIASED:
        picture = Image.fromarray(np.ascontiguousarray(image))
        small = _scaled(np.array(picture.resize((columns, rows), Image.Resampling.BILINEAR)))
    else:
        pixels = _unit(image)[None]
        small = functional.interpolate(
            pixels, size=(rows, columns), mode='bilinear', align_corners=False
        )[0].clamp(0.0, 1.0)
        small = small * 2.0 - 1.0
    fitted[:, top : top + rows, left : left + columns] = small
    return fitted


def black_image(size: int) -> torch.Tensor:
    """Return what a missing camera shows: pixel values float32 [3, size, size], all -1."""
    return torch.full((3, size, size), float(BLACK))


def _unit(image: UInt8Array) -> torch.Tensor:
    pixels = torch.from_numpy(np.ascontiguousarray(image))
    return pixels.permute(2, 0, 1).float() / 255.0


def _scaled(image: UInt8Array) -> torch.Tensor:
    return _unit(image) * 2.0 - 1.0
