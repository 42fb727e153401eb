"""The one place where a step waits for the device to read a number."""

from __future__ import annotations

from torch import Tensor


def read_number(value: Tensor) -> float:
    """Bring one number to the host.

    Every call makes the host wait for the device and ends a stretch that a CUDA graph can hold.
    A pruned pass may do so only for what its plan branches on, and once at its end.

    Args:
        value: Tensor of one number.
    """
    return float(value.item())
