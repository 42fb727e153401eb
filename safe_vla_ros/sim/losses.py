"""What the bundled policy is trained on: clean expert chunks, and where things are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.policies.mini_model import MiniVla

_TRAINING_ATTENTION = 'safe_vla_training_softmax'
_PROPRIO_NOISE = (0.003, 0.003, 0.003, 0.02, 0.02, 0.02, 0.001, 0.001)
"""Standard deviations: metres, radians, metres; the layout of ``expert_policy.PROPRIO_LAYOUT``."""

_PROPRIO_DROPPED = 0.3
_RARITY = 20.0
"""Weight of a token that shows something, which most do not."""


@dataclass(frozen=True)
class Batch:
    """Tensors of B samples, normalised.

    Attributes:
        images: uint8 [B, 3, S, S] by camera.
        proprio: float32 [B, P], physical units.
        instruction_ids: int64 [B, T].
        actions: float32 [B, chunk, 4], model units.
        relative: Asked bowl and plate seen from the hand, float32 [B, 6], decimetres.
        things: Whether a visual token shows a bowl, the plate, the hand; float32 [B, N, 3].
        asked: Whether it shows the asked bowl, float32 [B, N].
    """

    images: Mapping[str, Tensor]
    proprio: Tensor
    instruction_ids: Tensor
    actions: Tensor
    relative: Tensor
    things: Tensor
    asked: Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the heads that exist in training only; 0 leaves one out.

    Attributes:
        relative: Where bowl and plate are, told by the action rows.
        things: Which visual tokens show a bowl, the plate or the hand (a middle layer).
        asked: Which visual tokens show the asked bowl (the last layer but one).
    """

    relative: float = 0.3
    things: float = 0.3
    asked: float = 0.3


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
    """The policy with training-only heads that say where things are."""

    def __init__(self, model: MiniVla, weights: LossWeights | None = None) -> None:
        super().__init__()
        AttentionInterface.register(_TRAINING_ATTENTION, _softmax_attention)
        model.decoder.set_attn_implementation(_TRAINING_ATTENTION)
        self.model = model
        self.weights = weights or LossWeights()
        width, layers = model.config.hidden_size, model.config.num_hidden_layers
        self.things_after, self.asked_after = layers // 2, layers - 1
        self.relative_head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 6))
        self.things_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))
        self.asked_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def vary(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return images float32 and proprioception with noise, some of it left out."""
        images = {name: _jitter(image) for name, image in batch.images.items()}
        noise = torch.tensor(_PROPRIO_NOISE) * torch.randn_like(batch.proprio)
        known = (torch.rand(len(batch.proprio), 1) >= _PROPRIO_DROPPED).float()
        mean = self.model.proprio_mean.float()
        return images, known * (batch.proprio + noise) + (1.0 - known) * mean

    def forward(
        self, images: Mapping[str, Tensor], proprio: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and its action part (mean L1, model units)."""
        model = self.model
        visual = model.encode_images(images)
        embeddings = model.assemble(visual, proprio, batch.instruction_ids)
        hidden, states = model.decode_full(embeddings, keep=(self.things_after, self.asked_after))
        rows = hidden[:, model.action_slice]
        action_loss = (model.action_head(rows).float() - batch.actions).abs().mean()
        guess = self.relative_head(rows.mean(1)).float()
        relative_loss = (guess - batch.relative).abs().mean()
        seen = model.visual_slice
        things = self.things_head(states[self.things_after][:, seen]).float()
        asked = self.asked_head(states[self.asked_after][:, seen]).float()[..., 0]
        loss = (
            action_loss
            + self.weights.relative * relative_loss
            + self.weights.things * _rare_loss(things, batch.things)
            + self.weights.asked * _rare_loss(asked, batch.asked)
        )
        return loss, action_loss


def _rare_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    rarity = torch.tensor(_RARITY)
    return functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=rarity)
