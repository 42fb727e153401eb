"""OpenVLA's vision towers as transformers modules: raw features of the second-to-last block.

Module and key names follow timm's, which the checkpoints use; the mapping is one table per kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.checkpoint_tensors import (
    ReadBytes,
    StoredTensor,
    check_shape,
    load_parameters,
    load_tensor,
    set_parameter,
)
from safe_vla_ros.policies.patches import image_patches
from safe_vla_ros.policies.vision_sizes import DINOV2, SIGLIP, TowerSizes

_NORM_EPSILON = 1e-6
_ACTIVATION = 'gelu'
"""The exact (erf) one in both towers; transformers' own SigLIP would take the tanh one."""

_BLOCK = {
    'attn.proj': ('attention.o_proj', 'self_attn.out_proj'),
    'norm1': ('norm1', 'layer_norm1'),
    'norm2': ('norm2', 'layer_norm2'),
    'mlp.fc1': ('mlp.fc1', 'mlp.fc1'),
    'mlp.fc2': ('mlp.fc2', 'mlp.fc2'),
}
_ATTENTION = ('attention', 'self_attn')


class FusedVision(nn.Module):
    """Runs every tower on its own normalisation of the images and joins the features."""

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self,
        sizes: Sequence[TowerSizes],
        means: Sequence[Sequence[float]],
        stds: Sequence[Sequence[float]],
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.towers = nn.ModuleList(_build_tower(size) for size in sizes)
        for name, values in (('pixel_mean', means), ('pixel_std', stds)):
            tensor = torch.tensor(values, dtype=torch.float32, device='cpu').view(1, -1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)

    @property
    def width(self) -> int:
        """Width of the joined features."""
        return sum(size.width for size in self.sizes)

    @property
    def grid(self) -> int:
        """Patches per side of a camera's image."""
        return self.sizes[0].grid

    @property
    def image_size(self) -> int:
        """Side of the input images, pixels."""
        return self.sizes[0].image_size

    def place_buffers(self, device: torch.device) -> None:
        """Make the buffers that no checkpoint stores, after building on the meta device."""
        self.pixel_mean, self.pixel_std = self.pixel_mean.to(device), self.pixel_std.to(device)
        for tower, sizes in zip(self.towers, self.sizes, strict=True):
            if sizes.kind == SIGLIP:
                positions = torch.arange(sizes.grid**2, device=device)[None]
                cast('Any', tower).embeddings.position_ids = positions

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Normalise prepared images for every tower.

        Args:
            images: RGB, uint8 [C, S, S, 3] on any device.

        Returns:
            Pixel values, float32 [C, 3 * towers, S, S], on the device of the weights.
        """
        device = self.pixel_mean.device
        pixels = images.to(device).permute(0, 3, 1, 2).float().div(255.0)
        repeated = pixels.repeat(1, len(self.sizes), 1, 1)
        return repeated.sub(self.pixel_mean).div(self.pixel_std)

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the pixels under each visual token, before normalisation.

        Args:
            pixels: Pixel values [C, 3 * towers, S, S].

        Returns:
            float32 [C * grid * grid, P] in 0..1, camera by camera.
        """
        first = pixels[:, :3] * self.pixel_std[:, :3] + self.pixel_mean[:, :3]
        return image_patches(first.float(), self.grid, self.grid).flatten(0, 1)

    def tower_features(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return each tower's features, [C, P, width], of pixel values [C, 3 * towers, S, S]."""
        features = []
        for index, (tower, sizes) in enumerate(zip(self.towers, self.sizes, strict=True)):
            channels = pixels[:, 3 * index : 3 * index + 3]
            weight = next(tower.parameters())
            states = tower(channels.to(weight.device, weight.dtype)).last_hidden_state
            features.append(states[:, states.shape[1] - sizes.grid**2 :])
        return features

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map pixel values [C, 3 * towers, S, S] to features [C, P, width]."""
        return torch.cat(self.tower_features(pixels), dim=-1)


def _build_tower(sizes: TowerSizes) -> nn.Module:
    common: dict[str, Any] = {
        'hidden_size': sizes.width,
        'num_hidden_layers': sizes.blocks,
        'num_attention_heads': sizes.heads,
        'image_size': sizes.image_size,
        'patch_size': sizes.patch,
        'hidden_act': _ACTIVATION,
        'layer_norm_eps': _NORM_EPSILON,
        'attn_implementation': 'sdpa',
    }
    tower: Any
    if sizes.kind == DINOV2:
        config = Dinov2WithRegistersConfig(num_register_tokens=sizes.registers, **common)
        tower = Dinov2WithRegistersModel(config)
        tower.layernorm = nn.Identity()
        for layer in tower.encoder.layer:
            # The config knows whole MLP ratios only.
            layer.mlp.fc1 = nn.Linear(sizes.width, sizes.mlp_width)
            layer.mlp.fc2 = nn.Linear(sizes.mlp_width, sizes.width)
            if not sizes.layer_scale:
                layer.layer_scale1 = layer.layer_scale2 = nn.Identity()
        # The mask token exists for pre-training only.
        del tower.embeddings.mask_token
        tower.embeddings.register_buffer('mask_token', None, persistent=False)
    else:
        siglip = SiglipVisionConfig(
            intermediate_size=sizes.mlp_width, vision_use_head=False, **common
        )
        tower = SiglipVisionModel(siglip)
        tower.post_layernorm = nn.Identity()
    return cast('nn.Module', tower.eval())


def load_vision(
    vision: FusedVision,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    read: ReadBytes | None = None,
) -> None:
    """Fill towers that were built on the meta device; ``read`` counts what has been read.

    Raises:
        CheckpointError: A key is missing or has another shape.
    """
    for tower, sizes in zip(vision.towers, vision.sizes, strict=True):
        if sizes.kind == DINOV2:
            for name, tensor in _dinov2_embeddings(checkpoint, sizes).items():
                set_parameter(tower, f'embeddings.{name}', tensor.to(device, dtype))
        sources = tower_sources(checkpoint, sizes)
        load_parameters(tower, sources, device=device, dtype=dtype, read=read)
    vision.place_buffers(device)


def tower_sources(checkpoint: Checkpoint, sizes: TowerSizes) -> dict[str, StoredTensor]:
    """Say for each parameter of the transformers module where it lies in the checkpoint.

    Raises:
        CheckpointError: A key is missing.
    """
    siglip = int(sizes.kind == SIGLIP)
    layers = ('encoder.layer', 'encoder.layers')[siglip]
    patches = ('embeddings.patch_embeddings.projection', 'embeddings.patch_embedding')[siglip]
    sources: dict[str, StoredTensor] = {}
    for leaf in ('weight', 'bias'):
        key = f'{sizes.prefix}.patch_embed.proj.{leaf}'
        sources[f'{patches}.{leaf}'] = checkpoint.tensor(key)
        for block in range(sizes.blocks):
            stored, name = f'{sizes.prefix}.blocks.{block}', f'{layers}.{block}'
            for theirs, ours in _BLOCK.items():
                key = f'{stored}.{theirs}.{leaf}'
                sources[f'{name}.{ours[siglip]}.{leaf}'] = checkpoint.tensor(key)
            fused = checkpoint.tensor(f'{stored}.attn.qkv.{leaf}')
            for part, letter in enumerate('qkv'):
                target = f'{name}.{_ATTENTION[siglip]}.{letter}_proj.{leaf}'
                sources[target] = fused.part(part, 3)
    if siglip:
        positions = checkpoint.tensor(f'{sizes.prefix}.pos_embed')
        sources['embeddings.position_embedding.weight'] = positions.reshaped(*positions.shape[1:])
    elif sizes.layer_scale:
        for block in range(sizes.blocks):
            for scale in ('1', '2'):
                sources[f'{layers}.{block}.layer_scale{scale}.lambda1'] = checkpoint.tensor(
                    f'{sizes.prefix}.blocks.{block}.ls{scale}.scale_factor'
                )
    return sources


def _dinov2_embeddings(checkpoint: Checkpoint, sizes: TowerSizes) -> Mapping[str, torch.Tensor]:
    """Class, register and position embeddings; positions of prefix tokens are folded in."""

    def load(name: str, rows: int) -> torch.Tensor:
        stored = checkpoint.tensor(f'{sizes.prefix}.{name}')
        check_shape(stored, (1, rows, sizes.width))
        return load_tensor(stored)

    prefix = checkpoint.tensor(f'{sizes.prefix}.pos_embed').shape[1] - sizes.grid**2
    positions = load('pos_embed', prefix + sizes.grid**2)
    class_token = load('cls_token', 1)
    registers = torch.zeros(1, 0, sizes.width, dtype=positions.dtype)
    if sizes.registers:
        registers = load('reg_token', sizes.registers)
    class_position = positions[:, :1] if prefix else torch.zeros_like(positions[:, :1])
    if prefix > 1:
        registers = registers + positions[:, 1:prefix]
    return {
        'cls_token': class_token,
        'register_tokens': registers,
        'position_embeddings': torch.cat([class_position, positions[:, prefix:]], dim=1),
    }
