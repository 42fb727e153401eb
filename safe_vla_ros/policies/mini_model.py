"""The network of the bundled policy: a VLA in the shape of OpenVLA-OFT, small enough for a CPU.

Sequence: visual tokens of every camera | proprioception | instruction | action placeholders | stop.
Attention is bidirectional and one pass gives the whole chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from safe_vla_ros.policies.patches import image_patches
from safe_vla_ros.pruning import SequenceLayout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOP_TOKEN_ID = 2


@dataclass(frozen=True)
class MiniConfig:
    """Sizes of the network; the fields of ``config.json``.

    Attributes:
        cameras: Side of the square input image by camera, pixels, in sequence order.
        patch_sizes: Side of the square patch that becomes one visual token, by camera, pixels.
        vocab_size: Words the instruction embedding knows.
        instruction_length: Instruction tokens; shorter texts are padded, longer ones cut.
        chunk_size: Actions per chunk.
        action_dim: Numbers per action.
        proprio_dim: Numbers of proprioception.
        proprio_mean, proprio_std: Statistics of the training data.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: Decoder sizes.
    """

    cameras: Mapping[str, int]
    patch_sizes: Mapping[str, int]
    vocab_size: int
    instruction_length: int
    chunk_size: int
    action_dim: int
    proprio_dim: int
    proprio_mean: Sequence[float]
    proprio_std: Sequence[float]
    hidden_size: int = 192
    num_hidden_layers: int = 6
    num_attention_heads: int = 3
    intermediate_size: int = 512

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of visual tokens by camera."""
        sides = {name: size // self.patch_sizes[name] for name, size in self.cameras.items()}
        return {name: (side, side) for name, side in sides.items()}

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens of all cameras."""
        return sum(rows * columns for rows, columns in self.grids.values())


class MiniVla(nn.Module):
    """Patch encoder per camera, Llama decoder, L1-regression head."""

    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(self, config: MiniConfig) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.vision = nn.ModuleDict(
            {
                name: PatchEncoder(size, config.patch_sizes[name], width)
                for name, size in config.cameras.items()
            }
        )
        self.proprio_projector = nn.Sequential(
            nn.Linear(config.proprio_dim, width), nn.GELU(), nn.Linear(width, width)
        )
        self.decoder = LlamaModel(
            LlamaConfig(
                vocab_size=config.vocab_size,
                hidden_size=width,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                max_position_embeddings=1024,
                use_cache=False,
            )
        )
        self.placeholders = nn.Parameter(0.02 * torch.randn(config.chunk_size, width))
        self.action_head = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, config.action_dim)
        )
        self.register_buffer(
            'proprio_mean', torch.tensor(config.proprio_mean, dtype=torch.float32), persistent=False
        )
        self.register_buffer(
            'proprio_std', torch.tensor(config.proprio_std, dtype=torch.float32), persistent=False
        )

    @property
    def visual_slice(self) -> slice:
        """Positions of the visual tokens in the sequence."""
        return slice(0, self.config.num_visual_tokens)

    @property
    def action_slice(self) -> slice:
        """Positions of the action placeholders in the sequence."""
        start = self.config.num_visual_tokens + 1 + self.config.instruction_length
        return slice(start, start + self.config.chunk_size)

    @property
    def layout(self) -> SequenceLayout:
        """Where everything stands in the sequence."""
        actions = self.action_slice
        return SequenceLayout(
            length=actions.stop + 1,
            visual=self.visual_slice,
            tokens_per_camera=tuple(r * c for r, c in self.config.grids.values()),
            grids=tuple(self.config.grids.values()),
            last_row=actions.stop,
            action_rows=actions,
        )

    def encode_images(self, images: Mapping[str, Tensor]) -> Tensor:
        """Turn images into projected visual tokens.

        Args:
            images: uint8 [B, 3, S, S] by camera.

        Returns:
            [B, N, D] visual tokens, cameras in the config's order.
        """
        return torch.cat([self.vision[name](images[name]) for name in self.config.cameras], dim=1)

    def patches(self, images: Mapping[str, Tensor]) -> Tensor:
        """Return the pixels under each visual token.

        Args:
            images: uint8 [1, 3, S, S] by camera.

        Returns:
            float32 [N, P], cameras in the config's order; shorter ones are filled up with zeros,
            which leave the angle between two of them as it is.
        """
        grids = self.config.grids.items()
        patches = [image_patches(images[name][0].float(), *grid) for name, grid in grids]
        widest = max(part.shape[1] for part in patches)
        return torch.cat([nn.functional.pad(p, (0, widest - p.shape[1])) for p in patches])

    def assemble(self, visual: Tensor, proprio: Tensor, instruction_ids: Tensor) -> Tensor:
        """Put the decoder's input sequence together.

        Args:
            visual: [B, N, D] from ``encode_images``.
            proprio: [B, P] float32, physical units.
            instruction_ids: [B, T] int64, already padded or cut.

        Returns:
            [B, N + 1 + T + chunk + 1, D] input embeddings.
        """
        batch = len(visual)
        normalised = ((proprio - self.proprio_mean) / self.proprio_std).to(visual.dtype)
        proprio_token = self.proprio_projector(normalised)[:, None]
        text = self.decoder.embed_tokens(instruction_ids).to(visual.dtype)
        slots = self.placeholders.to(visual.dtype).expand(batch, -1, -1)
        stop_ids = torch.full((batch, 1), STOP_TOKEN_ID, device=visual.device)
        stop = self.decoder.embed_tokens(stop_ids).to(visual.dtype)
        return torch.cat([visual, proprio_token.to(visual.dtype), text, slots, stop], dim=1)

    def decode_full(
        self, embeddings: Tensor, *, keep: Sequence[int] = (), **attention: Any
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Run every decoder layer over every token (training).

        Args:
            embeddings: [B, S, D].
            keep: After how many layers to keep what comes out.
            **attention: Passed to the attention function of each layer.

        Returns:
            [B, S, D] hidden states after the final norm, and those that were to be kept.
        """
        positions = torch.arange(embeddings.shape[1], device=embeddings.device)[None]
        rotary = self.decoder.rotary_emb(embeddings, position_ids=positions)
        hidden, kept = embeddings, {}
        for number, layer in enumerate(self.decoder.layers, start=1):
            hidden = layer(hidden, position_embeddings=rotary, **attention)
            if number in keep:
                kept[number] = hidden
        return self.decoder.norm(hidden), kept


class PatchEncoder(nn.Module):
    """Visual tokens that see their own patch and nothing else, with a learned position added.

    What a token says is where it is: that is what makes attention to tokens mean attention to
    things.
    """

    def __init__(self, image_size: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stem = nn.Sequential(
            nn.Linear(3 * patch_size**2, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.position = nn.Parameter(0.02 * torch.randn((image_size // patch_size) ** 2, width))

    def forward(self, images: Tensor) -> Tensor:
        """Return visual tokens [B, (S/P)^2, D] of images uint8 or float [B, 3, S, S], 0..255."""
        cells = images.shape[-1] // self.patch_size
        side = cells * self.patch_size
        pixels = images[..., :side, :side].to(self.position.dtype).div(127.5).sub(1.0)
        patches = image_patches(pixels, cells, cells)
        tokens: Tensor = self.stem(patches)
        return tokens + self.position
