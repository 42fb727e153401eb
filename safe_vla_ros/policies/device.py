"""Where a policy runs and with which precision."""

from __future__ import annotations

import torch

from safe_vla_ros.errors import ParameterError

DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16}


def choose_device(name: str) -> torch.device:
    """Return the device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ParameterError: The name is not one of these, or there is no such device.
    """
    available = torch.cuda.is_available()
    if name == 'auto':
        return torch.device('cuda' if available else 'cpu')
    if name not in ('cpu', 'cuda'):
        msg = f'device is {name!r}, allowed are auto, cpu and cuda'
        raise ParameterError(msg)
    if name == 'cuda' and not available:
        msg = 'device is cuda, but torch sees no CUDA device; allowed here are auto and cpu'
        raise ParameterError(msg)
    return torch.device(name)


def choose_dtype(name: str, device: torch.device, stored: torch.dtype) -> torch.dtype:
    """Return the dtype for ``auto``, ``float32`` or ``bfloat16``.

    Args:
        name: The parameter.
        device: Where the policy runs.
        stored: Dtype of the weights on disk.

    Returns:
        For ``auto``: bfloat16 on CUDA, else the stored one (float32 for any other than these two).

    Raises:
        ParameterError: The name is not one of these.
    """
    if name == 'auto':
        if device.type == 'cuda':
            return torch.bfloat16
        return stored if stored in DTYPES.values() else torch.float32
    if name not in DTYPES:
        msg = f'dtype is {name!r}, allowed are auto, {" and ".join(DTYPES)}'
        raise ParameterError(msg)
    return DTYPES[name]
