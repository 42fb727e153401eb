"""CogACT's action head: a transformer that tells the noise in a chunk of actions (DiT).

Layout and keys are those of its checkpoints (arXiv 2411.19650; DiT: arXiv 2212.09748).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

_NORM_EPSILON = 1e-6
_LONGEST_PERIOD = 10_000.0


@dataclass(frozen=True)
class DitSizes:
    """Sizes of the head; all but the heads can be seen in its weights.

    Attributes:
        width: Width of its tokens.
        blocks: Transformer blocks.
        heads: Attention heads.
        mlp_width: Width inside a block's MLP.
        frequencies: Numbers that encode a timestep, half of them cosines.
        condition_width: D, width of the decoder's state.
        chunk_size: T, actions per chunk.
        action_dim: A, numbers per action.
    """

    width: int
    blocks: int
    heads: int
    mlp_width: int
    frequencies: int
    condition_width: int
    chunk_size: int
    action_dim: int

    @property
    def tokens(self) -> int:
        """Tokens of one pass: the condition and the actions."""
        return 1 + self.chunk_size

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one pass of one sample."""
        tokens, width = self.tokens, self.width
        block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * self.mlp_width
        ends = self.chunk_size * self.action_dim * width + tokens * width * self.action_dim
        condition = width * (self.frequencies + width + self.condition_width)
        return self.blocks * block + ends + condition


class _Embedder(nn.Module):
    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, width)

    def forward(self, values: Tensor) -> Tensor:
        return cast('Tensor', self.linear(values))


class _ConditionEmbedder(_Embedder):
    """Also holds what stands for the condition when there is none."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__(inputs, width)
        self.uncondition = nn.Parameter(torch.empty(1, inputs))


class _TimestepEmbedder(nn.Module):
    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, timestep: Tensor) -> Tensor:
        half = self.frequencies // 2
        steps = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angles = timestep[:, None].float() * torch.exp(-math.log(_LONGEST_PERIOD) * steps / half)
        return cast('Tensor', self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1)))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, width = tokens.shape
        shape = (batch, count, 3, self.heads, width // self.heads)
        query, key, value = self.qkv(tokens).view(shape).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return cast('Tensor', self.proj(mixed.transpose(1, 2).reshape(batch, count, width)))


class _Mlp(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, tokens: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.fc1(tokens), approximate='tanh')
        return cast('Tensor', self.fc2(inner))


class _Block(nn.Module):
    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.attn = _Attention(sizes.width, sizes.heads)
        self.mlp = _Mlp(sizes.width, sizes.mlp_width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(_norm(tokens))
        return tokens + cast('Tensor', self.mlp(_norm(tokens)))


def _norm(tokens: Tensor) -> Tensor:
    """Layer norm without weights of its own."""
    return nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=_NORM_EPSILON)


class DiffusionTransformer(nn.Module):
    """Tells the noise in noisy actions, given a timestep and a condition; runs in float32."""

    def __init__(self, sizes: DitSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.x_embedder = _Embedder(sizes.action_dim, sizes.width)
        self.t_embedder = _TimestepEmbedder(sizes.frequencies, sizes.width)
        self.z_embedder = _ConditionEmbedder(sizes.condition_width, sizes.width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.tokens, sizes.width))
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.blocks))
        self.final_layer = _Embedder(sizes.width, sizes.action_dim)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.positional_embedding.device

    @property
    def uncondition(self) -> Tensor:
        """What stands for the condition when there is none, [1, D]."""
        return self.z_embedder.uncondition

    def forward(self, actions: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        """Tell the noise.

        Args:
            actions: Noisy actions [B, T, A].
            timestep: int64 [B].
            condition: [B, D].

        Returns:
            Noise [B, T, A].
        """
        context = self.t_embedder(timestep) + self.z_embedder(condition)
        tokens = torch.cat([context[:, None], self.x_embedder(actions)], dim=1)
        tokens = tokens + self.positional_embedding
        for block in self.blocks:
            tokens = block(tokens)
        return cast('Tensor', self.final_layer(_norm(tokens)))[:, 1:]
