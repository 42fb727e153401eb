"""Linear layers whose weights are packed once for the CPU's matrix kernels.

oneDNN reorders a plain weight at every call; packed once, that fixed cost per layer is gone. The
packed copy replaces the plain one, so memory does not grow.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

_ROWS = 512
"""Rows for which the layout is chosen: a decoder's pass. Other numbers of rows work too."""


class PackedLinear(nn.Module):
    """A linear layer for inference on the CPU; holds no parameters, only the packed weight.

    Attributes:
        nbytes: Size of the plain weight and bias, bytes.
    """

    def __init__(self, linear: nn.Linear) -> None:
        """Pack the weight of a linear layer, which must be on the CPU."""
        super().__init__()
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.nbytes = sum(parameter.nbytes for parameter in linear.parameters())
        with torch.no_grad():
            self._weight = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001
                linear.weight.detach(), _ROWS
            )
            self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, values: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        mapped: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            values, self._weight, self._bias, 'none', [], ''
        )
        return mapped


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Tell whether packed kernels of a dtype are here and answer like the plain ones.

    torch does not promise to keep these operators as they are, so they are tried before use.
    """
    numbers = torch.arange(96 * 160, dtype=torch.float32)
    linear = nn.Linear(96, 160, bias=False, device='meta')
    linear.weight = nn.Parameter(numbers.sin().view(160, 96).to(dtype), requires_grad=False)
    try:
        packed = PackedLinear(linear)
        for rows in (1, 7, 64):
            values = numbers[: rows * 96].cos().view(1, rows, 96).to(dtype)
            with torch.inference_mode():
                plain = linear(values).float()
                if (packed(values).float() - plain).abs().max() > 0.02 * plain.abs().max():
                    return False
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


def pack_for_cpu(*modules: nn.Module | None, device: torch.device, dtype: torch.dtype) -> int:
    """Pack modules where it is faster and safe: in bfloat16 on a CPU whose kernels can be trusted.

    Args:
        modules: Used for inference only from now on; None is passed over.
        device: Where they are.
        dtype: Dtype of their weights.

    Returns:
        How many layers were packed; 0 leaves everything as it was.
    """
    if device.type != 'cpu' or dtype != torch.bfloat16 or not can_pack(dtype):
        return 0
    return sum(pack_linears(module) for module in modules if module is not None)


def pack_linears(module: nn.Module) -> int:
    """Replace every linear layer inside a module on the CPU by its packed form, one at a time.

    Returns:
        How many layers were replaced.
    """
    count = 0
    # One level at a time: a list of all modules would keep every plain weight alive to the end.
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, PackedLinear(child))
            count += 1
        else:
            count += pack_linears(child)
    return count


def weight_bytes(module: nn.Module) -> int:
    """Return the size of a module's weights as they were before packing, bytes."""
    packed = (part.nbytes for part in module.modules() if isinstance(part, PackedLinear))
    return sum(parameter.nbytes for parameter in module.parameters()) + sum(packed)
