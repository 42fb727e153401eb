"""The one place where a step waits for the device to read numbers."""

from __future__ import annotations

from typing import cast

from torch import Tensor


def read_numbers(values: Tensor) -> list[float]:
    """Bring numbers to the host.

    Every call makes the host wait for the device and ends a stretch that a CUDA graph can hold.
    A pruned pass may do so only for what its plan branches on, and once at its end.

    Args:
        values: Tensor [C].
    """
    return cast('list[float]', values.tolist())


def read_number(value: Tensor) -> float:
    """Bring one number to the host; see ``read_numbers``.

    Args:
        value: Tensor of one number.
    """
    return float(read_numbers(value.reshape(1))[0])
