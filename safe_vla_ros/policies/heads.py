"""The small networks around the decoder: projectors, the L1 action head and action tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.types import Float64Array


class GeluProjector(nn.Module):
    """Linear layers ``fc1`` .. ``fcN`` with exact (erf) GELU between them.

    With three layers the projector of vision features (no-align+fused-gelu-mlp), with two that of
    proprioception.
    """

    def __init__(self, widths: Iterable[int]) -> None:
        super().__init__()
        sizes = list(widths)
        self.depth = len(sizes) - 1
        for index in range(self.depth):
            self.add_module(f'fc{index + 1}', nn.Linear(sizes[index], sizes[index + 1]))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map [..., widths[0]] to [..., widths[-1]]."""
        for index in range(self.depth):
            if index:
                values = nn.functional.gelu(values)
            values = self.get_submodule(f'fc{index + 1}')(values)
        return values


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + cast('torch.Tensor', self.ffn(values))


class _ResidualMlp(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, blocks: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(inputs)
        self.fc1 = nn.Linear(inputs, width)
        self.mlp_resnet_blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(blocks))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, outputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = torch.relu(self.fc1(self.layer_norm1(values)))
        for block in self.mlp_resnet_blocks:
            values = block(values)
        return cast('torch.Tensor', self.fc2(self.layer_norm2(values)))


class L1ActionHead(nn.Module):
    """OpenVLA-OFT's regression head: the states of one action's tokens give that action."""

    def __init__(self, width: int, hidden: int, action_dim: int, blocks: int) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.model = _ResidualMlp(action_dim * width, hidden, action_dim, blocks)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Regress normalised actions.

        Args:
            states: Hidden states after the final norm, [T * A, D], action by action.

        Returns:
            Normalised actions, float32 [T, A].
        """
        rows = states.reshape(-1, self.action_dim * states.shape[-1])
        return cast('torch.Tensor', self.model(rows)).float()


def build_action_head(tensors: Mapping[str, torch.Tensor], path: Path, width: int) -> L1ActionHead:
    """Build an empty L1 head with the sizes of the stored one, on the meta device.

    Args:
        tensors: The stored tensors (or their shapes).
        path: Their file, for messages.
        width: D, width of the decoder.

    Raises:
        CheckpointError: Another kind of head, or one for another decoder.
    """
    if any(key.startswith('noise_predictor.') for key in tensors):
        msg = f'{path} is a diffusion head; supported are the L1 regression head and action tokens'
        raise CheckpointError(msg)
    outputs = matrix_shape(tensors, path, 'model.fc2.weight')[0]
    hidden, inputs = matrix_shape(tensors, path, 'model.fc1.weight')
    if inputs != outputs * width:
        msg = (
            f'{path}: model.fc1.weight takes {inputs} inputs; {outputs} action dimensions of a '
            f'decoder {width} wide are {outputs * width}'
        )
        raise CheckpointError(msg)
    blocks = sum(key.endswith('.ffn.1.weight') for key in tensors)
    with torch.device('meta'):
        return L1ActionHead(width, hidden, outputs, blocks)


def build_proprio_projector(
    tensors: Mapping[str, torch.Tensor], path: Path, width: int
) -> GeluProjector:
    """Build an empty proprioception projector with the stored sizes, on the meta device.

    Raises:
        CheckpointError: It belongs to a decoder of another width, or a tensor is missing.
    """
    hidden, inputs = matrix_shape(tensors, path, 'fc1.weight')
    outputs = matrix_shape(tensors, path, 'fc2.weight')[0]
    if outputs != width:
        msg = f'{path}: fc2.weight has {outputs} outputs, the decoder is {width} wide'
        raise CheckpointError(msg)
    with torch.device('meta'):
        return GeluProjector((inputs, hidden, outputs))


def matrix_shape(tensors: Mapping[str, torch.Tensor], path: Path, key: str) -> tuple[int, int]:
    """Return (outputs, inputs) of a stored weight matrix.

    Raises:
        CheckpointError: It is missing or not a matrix.
    """
    tensor = tensors.get(key)
    if tensor is None or tensor.ndim != 2:
        what = 'is missing' if tensor is None else f'has shape {list(tensor.shape)}, not a matrix'
        msg = f'{path}: {key} {what}'
        raise CheckpointError(msg)
    return tensor.shape[0], tensor.shape[1]


def decode_action_tokens(token_ids: torch.Tensor, vocabulary: int, bins: int) -> Float64Array:
    """Turn action tokens into normalised actions (OpenVLA's discretisation).

    Args:
        token_ids: Ids, any shape; the last ``bins`` ids of the vocabulary are the bins, the last
            id the lowest.
        vocabulary: Size of the tokenizer's vocabulary without padding, 32000 for Llama 2.
        bins: Number of bin edges, 256.

    Returns:
        Bin centres in [-1, 1], float64, same shape; ids outside the bins take the nearest one.
    """
    edges = np.linspace(-1.0, 1.0, bins)
    centres = (edges[:-1] + edges[1:]) / 2.0
    index = np.clip(vocabulary - token_ids.cpu().numpy() - 1, 0, bins - 2)
    return cast('Float64Array', centres[index])
