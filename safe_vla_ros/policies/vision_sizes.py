"""Sizes of a vision tower, read from the shapes of its weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import Checkpoint

DINOV2, SIGLIP = 'dinov2', 'siglip'
_HEADS = {
    'vit_tiny': 3,
    'vit_small': 6,
    'vit_base': 12,
    'vit_large': 16,
    'vit_so400m': 16,
    'vit_giant': 24,
}
"""Attention heads of timm's vision transformers, by the start of their names."""


@dataclass(frozen=True)
class TowerSizes:
    """Sizes of one tower, from its weights' shapes; the heads come from the config.

    Attributes:
        kind: ``dinov2`` or ``siglip``.
        prefix: Where its keys start in the checkpoint.
        width: Feature width.
        blocks: Blocks that are run: all but the last one, whose output OpenVLA never uses.
        heads: Attention heads.
        mlp_width: Width inside a block's MLP.
        patch: Side of a patch, pixels.
        grid: Patches per side.
        registers: Register tokens beside the class token (DINOv2 only).
        layer_scale: Whether blocks have LayerScale factors.
    """

    kind: str
    prefix: str
    width: int
    blocks: int
    heads: int
    mlp_width: int
    patch: int
    grid: int
    registers: int
    layer_scale: bool

    @property
    def image_size(self) -> int:
        """Side of the input image, pixels."""
        return self.patch * self.grid

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image: patches in, and every block that is run."""
        patches, width = self.grid**2, self.width
        tokens = patches + (1 + self.registers if self.kind == DINOV2 else 0)
        block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * self.mlp_width
        return self.blocks * block + patches * 3 * self.patch**2 * width


def read_tower_sizes(
    checkpoint: Checkpoint, prefix: str, timm_id: str, *, heads: int, image_size: int
) -> TowerSizes:
    """Read a tower's sizes from the shapes of its weights.

    Args:
        checkpoint: The opened checkpoint.
        prefix: Where its keys start, for example ``vision_backbone.featurizer``.
        timm_id: The tower's entry of ``timm_model_ids``.
        heads: Attention heads.
        image_size: Side of the input image, pixels.

    Raises:
        CheckpointError: A key is missing, or the shapes contradict each other or the image size.
    """
    kind = tower_kind(timm_id, checkpoint.path / 'config.json')
    patches = checkpoint.tensor(f'{prefix}.patch_embed.proj.weight')
    mlp = checkpoint.tensor(f'{prefix}.blocks.0.mlp.fc1.weight')
    positions = checkpoint.tensor(f'{prefix}.pos_embed')
    blocks = checkpoint.count_blocks(f'{prefix}.blocks')
    for tensor, dimensions in ((patches, 4), (mlp, 2), (positions, 3)):
        if len(tensor.shape) != dimensions:
            msg = f'{tensor.path}: {tensor.key} has shape {list(tensor.shape)}'
            raise CheckpointError(f'{msg}, expected {dimensions} dimensions')
        if 0 in tensor.shape:
            msg = f'{tensor.path}: {tensor.key} has shape {list(tensor.shape)}, which is empty'
            raise CheckpointError(msg)
    width, patch = patches.shape[0], patches.shape[3]
    registers = 0
    if re.search(r'_reg\d', timm_id):
        registers = checkpoint.length(f'{prefix}.reg_token', 1)
    if blocks < 2 or heads < 1 or width % heads:
        msg = (
            f'{checkpoint.weights_file}: {checkpoint.stored_name(prefix)} has {blocks} blocks, '
            f'width {width} and {heads} heads; at least two blocks and a width divisible by the '
            'heads are needed'
        )
        raise CheckpointError(msg)
    sizes = TowerSizes(
        kind=kind,
        prefix=prefix,
        width=width,
        blocks=blocks - 1,
        heads=heads,
        mlp_width=mlp.shape[0],
        patch=patch,
        grid=image_size // patch,
        registers=registers,
        layer_scale=any(f'{prefix}.blocks.0.ls1.' in key for key in checkpoint.tensors),
    )
    prefixes = {0, 1, 1 + registers} if kind == DINOV2 else {0}
    if image_size % patch or positions.shape[1] - sizes.grid**2 not in prefixes:
        msg = (
            f'{positions.path}: {positions.key} has {positions.shape[1]} positions; an image of '
            f'{image_size} pixels has {image_size / patch:g} patches of {patch} pixels per side'
        )
        raise CheckpointError(msg)
    return sizes


def tower_kind(timm_id: str, where: Path) -> str:
    """Return ``dinov2`` or ``siglip`` for a timm model id; ``where`` is its file, for messages.

    Raises:
        CheckpointError: It is neither.
    """
    for kind in (DINOV2, SIGLIP):
        if kind in timm_id:
            return kind
    msg = f'{where}: timm_model_ids names {timm_id!r}; supported are {DINOV2} and {SIGLIP}'
    raise CheckpointError(msg)


def tower_heads(timm_ids: Sequence[str], where: Path) -> tuple[int, ...]:
    """Return the attention heads of towers, which their weights do not show.

    Args:
        timm_ids: Ids as in config.json; ``..._h<n>_...`` says the number, else timm's name does.
        where: Their file, for messages.

    Raises:
        CheckpointError: An id is not known.
    """
    heads = []
    for timm_id in timm_ids:
        stated = re.search(r'_h(\d+)(?:_|$)', timm_id)
        known = [count for name, count in _HEADS.items() if timm_id.startswith(f'{name}_')]
        if not stated and not known:
            msg = (
                f'{where}: the number of attention heads of {timm_id!r} (timm_model_ids) is not '
                'known; set openvla.vision_heads in policy.yaml'
            )
            raise CheckpointError(msg)
        heads.append(int(stated[1]) if stated else known[0])
    return tuple(heads)
