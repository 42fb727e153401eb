"""Random weights, made quickly at any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_BLOCK = 1_000_003
"""A prime, so that repeated blocks do not line up with the rows of a matrix."""


class RandomWeights:
    """Fills tensors with repeated normal noise: memory speed instead of a random number each."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._noise = torch.randn(_BLOCK, generator=generator).mul(0.02).to(dtype)

    @torch.no_grad()
    def fill(self, name: str, tensor: Tensor) -> None:
        """Fill a parameter: norms with 1, biases with 0, layer scales with 0.1, else noise."""
        if tensor.dim() == 1 and name.endswith('weight'):
            tensor.fill_(1.0)
        elif name.endswith('bias'):
            tensor.zero_()
        elif name.endswith(('lambda1', 'scale_factor')):
            tensor.fill_(0.1)
        else:
            flat = tensor.view(-1)
            for start in range(0, flat.numel(), _BLOCK):
                part = flat[start : start + _BLOCK]
                part.copy_(self._noise[: part.numel()])

    def materialise(
        self,
        module: nn.Module,
        device: torch.device,
        dtype: torch.dtype | Callable[[str], torch.dtype],
    ) -> None:
        """Give a module that was built on the meta device its parameters.

        Args:
            module: The module.
            device: Where they go.
            dtype: Their dtype, or what says it by name.
        """
        for path, owner in module.named_modules():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                where = f'{path}.{name}'
                kind = dtype if isinstance(dtype, torch.dtype) else dtype(where)
                empty = torch.empty(parameter.shape, dtype=kind, device=device)
                self.fill(where, empty)
                setattr(owner, name, nn.Parameter(empty, requires_grad=False))
