"""The network of pi0 and pi0.5: SigLIP, projector, Gemma for the prefix, and the action expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GemmaModel, SiglipVisionModel

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.action_expert import ActionExpert
from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.checkpoint_tensors import (
    ReadBytes,
    StoredTensor,
    check_shape,
    load_parameters,
)
from safe_vla_ros.policies.pi_sizes import (
    EXPERT,
    PALIGEMMA,
    PREFIX,
    PROJECTOR,
    VISION,
    PiSizes,
    embedding_key,
    key_prefix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from safe_vla_ros.policies.checkpoint import Checkpoint

_UNUSED = ('paligemma_with_expert.gemma_expert.lm_head.weight', f'{EXPERT}.embed_tokens.weight')


class PiNetwork(nn.Module):
    """From pixels and token ids to the prefix, and from it to actions."""

    def __init__(self, sizes: PiSizes) -> None:
        """Build every module on the current default device."""
        super().__init__()
        self.sizes = sizes
        self.vision = SiglipVisionModel(sizes.vision)
        self.projector = nn.Linear(sizes.vision.hidden_size, sizes.prefix.hidden_size)
        self.decoder = GemmaModel(sizes.prefix)
        # Its own scales by a buffer, which a network built without memory would not have.
        self.decoder.embed_tokens = nn.Embedding(sizes.prefix.vocab_size, sizes.prefix.hidden_size)
        self.expert = ActionExpert(sizes)
        use_tapping_attention(self.decoder)
        use_tapping_attention(self.expert)

    @property
    def grid(self) -> int:
        """Patches per side of an image."""
        return int(self.sizes.vision.image_size // self.sizes.vision.patch_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.projector.weight.device

    def matrices(self) -> nn.ModuleList:
        """Return attention and MLPs of both Gemmas: all that runs in the model's dtype."""
        layers = [*self.decoder.layers, *self.expert.layers]
        return nn.ModuleList(part for one in layers for part in (one.self_attn, one.mlp))

    def encode(self, pixels: Tensor) -> Tensor:
        """Map pixel values to visual tokens.

        Args:
            pixels: float32 [C, 3, S, S] from -1 to 1, present cameras only.

        Returns:
            [C * n, D], camera after camera; not scaled.
        """
        weight = self.vision.embeddings.patch_embedding.weight
        features = self.vision(pixels.to(weight.device, weight.dtype)).last_hidden_state
        tokens = self.projector(features.to(self.projector.weight.dtype))
        return cast('Tensor', tokens.flatten(0, 1).to(self.decoder.embed_tokens.weight.dtype))

    def assemble(self, visual: Tensor, ids: Sequence[int]) -> Tensor:
        """Join visual tokens [N, D] and the prompt's ids to the prefix [1, N + T, D]."""
        weight = self.decoder.embed_tokens.weight
        text = functional.embedding(torch.tensor(ids, device=weight.device), weight)
        scale = torch.tensor(self.sizes.prefix.hidden_size**0.5, device=weight.device)
        return torch.cat([visual, text * scale.to(weight.dtype)])[None]

    def encode_macs(self, cameras: int) -> dict[str, int]:
        """Count the multiply-accumulates of the stages of ``encode``."""
        vision, tokens = self.sizes.vision, self.grid**2
        width, mlp = vision.hidden_size, vision.intermediate_size
        block = 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp
        patches = tokens * 3 * vision.patch_size**2 * width
        projector = tokens * width * self.sizes.prefix.hidden_size
        return {
            'vision': cameras * (vision.num_hidden_layers * block + patches),
            'projector': cameras * projector,
        }


def build_network(sizes: PiSizes) -> PiNetwork:
    """Build the network on the meta device: no memory, no random numbers."""
    with torch.device('meta'):
        return PiNetwork(sizes).eval()


def load_network(
    checkpoint: Checkpoint,
    sizes: PiSizes,
    *,
    device: torch.device,
    dtype: torch.dtype,
    vision_dtype: torch.dtype,
    progress: Callable[[float], None] | None = None,
) -> PiNetwork:
    """Load the network without ever holding its weights twice.

    Args:
        checkpoint: The opened checkpoint.
        sizes: Its sizes.
        device: Where the weights go.
        dtype: What the matrices of both Gemmas become; norms and what is around the expert stay
            float32, as published.
        vision_dtype: What vision tower and projector become.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: A weight is missing, left over, of another shape, or cannot be read.
    """
    try:
        network = build_network(sizes)
    except Exception as error:  # what the library says of values that only it knows
        msg = f'{checkpoint.path}: no network can be built: {error}'
        raise CheckpointError(msg) from error
    sources = _sources(checkpoint, network)
    # Shapes are compared before the first byte is read, so a wrong directory fails at once.
    for name, stored in sources.items():
        check_shape(stored, tuple(network.get_parameter(name).shape))
    _refuse_surplus(checkpoint, {stored.key for stored in sources.values()})
    read = ReadBytes(sum(stored.nbytes for stored in sources.values()), progress)
    load_parameters(
        network,
        sources,
        device=device,
        dtype=lambda name: parameter_dtype(name, dtype, vision_dtype),
        read=read,
    )
    place_buffers(network, device)
    return network


def parameter_dtype(name: str, dtype: torch.dtype, vision_dtype: torch.dtype) -> torch.dtype:
    """Return what a parameter becomes: norms and what is around the expert stay float32.

    Args:
        name: Its name in the network.
        dtype: What the matrices of both Gemmas become.
        vision_dtype: What vision tower and projector become.
    """
    if name.startswith(('vision.', 'projector.')):
        return vision_dtype
    matrices = ('decoder.layers.', 'decoder.embed_tokens.', 'expert.layers.')
    return dtype if name.startswith(matrices) and 'layernorm' not in name else torch.float32


def place_buffers(network: PiNetwork, device: torch.device) -> None:
    """Make the buffers that no checkpoint stores, after building on the meta device."""
    for owner in (network.decoder, network.expert):
        owner.rotary_emb = type(owner.rotary_emb)(owner.config).to(device)
    positions = torch.arange(network.grid**2, device=device)[None]
    cast('Any', network.vision).embeddings.position_ids = positions


def _sources(checkpoint: Checkpoint, network: PiNetwork) -> dict[str, StoredTensor]:
    start = key_prefix(checkpoint)
    places = {
        'vision': VISION,
        'projector': PROJECTOR,
        'decoder': PREFIX,
        'expert.layers': f'{EXPERT}.layers',
        'expert.norm': f'{EXPERT}.norm',
    }
    sources = {}
    for name, _ in network.named_parameters():
        if name == 'decoder.embed_tokens.weight':
            sources[name] = checkpoint.tensor(embedding_key(checkpoint, start))
            continue
        for ours, theirs in places.items():
            if name.startswith(f'{ours}.'):
                key = f'{theirs}.{name.removeprefix(f"{ours}.")}'
                break
        else:
            key = name.removeprefix('expert.')
        sources[name] = checkpoint.tensor(f'{start}{key}')
    return sources


def _refuse_surplus(checkpoint: Checkpoint, used: set[str]) -> None:
    start = key_prefix(checkpoint)
    unused = {f'{start}{key}' for key in (*_UNUSED, f'{PALIGEMMA}.lm_head.weight')}
    for key in sorted(checkpoint.tensors.keys() - used - unused):
        msg = (
            f'{checkpoint.tensors[key].path}: {key} belongs to no part of a network of these sizes'
        )
        raise CheckpointError(msg)
