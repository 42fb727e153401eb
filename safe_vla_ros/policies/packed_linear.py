"""Linear layers whose weights are packed once for the CPU's matrix kernels.

oneDNN reorders a plain weight at every call; packed once, that fixed cost per layer is gone. The
packed copy replaces the plain one, so memory does not grow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference on the CPU; holds no parameters, only the packed weight."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        """Pack the weight of a linear layer.

        Args:
            linear: The layer, on the CPU.
            rows: Number of rows it will mostly be called with; other numbers work too.
        """
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        with torch.no_grad():
            self._weight = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001
                linear.weight.detach(), rows
            )
            self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            values, self._weight, self._bias, 'none', [], ''
        )
        return mapped


def can_pack() -> bool:
    """Tell whether this build of torch has the packed kernels."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, '_reorder_linear_weight')


def pack_linears(module: nn.Module, rows: int) -> int:
    """Replace every linear layer inside a module by its packed form, one at a time.

    Args:
        module: A model on the CPU that is only used for inference from now on.
        rows: Number of rows that the layers will mostly see.

    Returns:
        How many layers were replaced.
    """
    count = 0
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, PackedLinear(child, rows))
                count += 1
    return count
