"""What the bundled policy is trained on: clean expert chunks, and where object and goal are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

if TYPE_CHECKING:
    from safe_vla_ros.policies.mini_model import MiniVla, VisionEncoder

HIDDEN_STATE_DIM = 6
_TRAINING_ATTENTION = 'safe_vla_training_softmax'
_AUXILIARY_WEIGHT = 0.3
_PROPRIO_NOISE_M = 0.003


@dataclass(frozen=True)
class Batch:
    """Tensors of B samples, normalised.

    Attributes:
        corner, gripper: uint8 [B, 3, S, S].
        proprio: float32 [B, P], metres.
        instruction_ids: int64 [B, T].
        actions: float32 [B, chunk, 4], model units.
        hidden_state: float32 [B, 6], normalised.
    """

    corner: Tensor
    gripper: Tensor
    proprio: Tensor
    instruction_ids: Tensor
    actions: Tensor
    hidden_state: Tensor


def _softmax_attention(
    module: nn.Module,  # noqa: ARG001  (interface of transformers)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Bidirectional attention whose backward pass is faster on a CPU than SDPA's."""
    weights = torch.softmax(query @ key.transpose(-1, -2) * scaling, dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _jitter(images: Tensor) -> Tensor:
    """Change contrast by up to 10 % and brightness by up to 12 grey levels, per sample."""
    shape = (len(images), 1, 1, 1)
    contrast = 1.0 + 0.2 * (torch.rand(shape) - 0.5)
    brightness = 24.0 * (torch.rand(shape) - 0.5)
    return images.float() * contrast + brightness


class PolicyLoss(nn.Module):
    """The policy with a training-only head that says where object and goal are."""

    def __init__(self, model: MiniVla) -> None:
        super().__init__()
        AttentionInterface.register(_TRAINING_ATTENTION, _softmax_attention)
        model.decoder.set_attn_implementation(_TRAINING_ATTENTION)
        self.model = model
        width = model.config.hidden_size
        self.auxiliary_head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, HIDDEN_STATE_DIM)
        )

    def forward(self, batch: Batch, *, augment: bool) -> tuple[Tensor, Tensor]:
        """Return the loss and its action part (mean L1, model units)."""
        images = {'corner': batch.corner, 'gripper': batch.gripper}
        proprio = batch.proprio
        if augment:
            images = {name: _jitter(image) for name, image in images.items()}
            proprio = proprio + _PROPRIO_NOISE_M * torch.randn_like(proprio)
        visual = self.model.encode_images(images)
        embeddings = self.model.assemble(visual, proprio, batch.instruction_ids)
        hidden = self.model.decode_full(embeddings)[:, self.model.action_slice]
        action_loss = (self.model.action_head(hidden) - batch.actions).abs().mean()
        guess = self.auxiliary_head(hidden.mean(1))
        auxiliary_loss = (guess - batch.hidden_state).abs().mean()
        return action_loss + _AUXILIARY_WEIGHT * auxiliary_loss, action_loss


class StemLoss(nn.Module):
    """The vision encoders alone, read out as expected pixel positions of learned keypoints."""

    def __init__(self, model: MiniVla, keypoints: int = 32) -> None:
        super().__init__()
        self.model = model
        self.keypoints = nn.ModuleDict()
        for name, encoder in model.vision.items():
            self.keypoints[name] = nn.Conv2d(cast('VisionEncoder', encoder).channels, keypoints, 1)
        config = model.config
        self.text = nn.EmbeddingBag(config.vocab_size, 32, mode='mean')
        inputs = 2 * keypoints * len(config.cameras) + config.proprio_dim + 32
        outputs = config.chunk_size * config.action_dim + HIDDEN_STATE_DIM
        self.head = nn.Sequential(
            nn.Linear(inputs, 256),
            nn.GELU(),
            nn.Linear(256, 256),
            nn.GELU(),
            nn.Linear(256, outputs),
        )

    def forward(self, batch: Batch, *, augment: bool) -> tuple[Tensor, Tensor]:
        """Return the loss and its action part (mean L1, model units)."""
        images = {'corner': batch.corner, 'gripper': batch.gripper}
        parts = []
        for name, encoder in self.model.vision.items():
            image = _jitter(images[name]) if augment else images[name]
            features = cast('VisionEncoder', encoder).features(image)
            parts.append(_expected_positions(self.keypoints[name](features)))
        normalised = (batch.proprio - self.model.proprio_mean) / self.model.proprio_std
        parts += [normalised, self.text(batch.instruction_ids)]
        output = self.head(torch.cat(parts, dim=1))
        count = batch.actions[0].numel()
        action_loss = (output[:, :count] - batch.actions.flatten(1)).abs().mean()
        auxiliary_loss = (output[:, count:] - batch.hidden_state).abs().mean()
        return action_loss + auxiliary_loss, action_loss


def _expected_positions(maps: Tensor) -> Tensor:
    """Spatial softmax: [B, C, H, W] to expected x and y in -1..1, [B, 2 C]."""
    height, width = maps.shape[-2:]
    weights = torch.softmax(maps.flatten(2), dim=-1).view(*maps.shape[:2], height, width)
    x = (weights.sum(2) * torch.linspace(-1, 1, width)).sum(-1)
    y = (weights.sum(3) * torch.linspace(-1, 1, height)).sum(-1)
    return torch.cat([x, y], dim=1)
