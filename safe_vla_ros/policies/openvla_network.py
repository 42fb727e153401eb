"""The network that OpenVLA and OpenVLA-OFT share: vision towers, projector and Llama decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from transformers import LlamaModel

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.checkpoint_tensors import ReadBytes, check_shape, load_parameters
from safe_vla_ros.policies.decoder import DecoderOutput, run_decoder
from safe_vla_ros.policies.heads import GeluProjector
from safe_vla_ros.policies.openvla_config import NetworkSizes
from safe_vla_ros.policies.prompt import STOP_ID
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.policies.vision import FusedVision, load_vision, tower_sources
from safe_vla_ros.pruning import SequenceLayout

if TYPE_CHECKING:
    from safe_vla_ros.pruning import EpisodeState, Pruner
    from safe_vla_ros.types import PruningSettings

_LLAMA = 'language_model.model'
_LM_HEAD = 'language_model.lm_head.weight'


@dataclass(frozen=True)
class InputSequence:
    """The decoder's input.

    Attributes:
        embeddings: [1, S, D].
        visual: Positions of the visual tokens.
        action_rows: Positions of the action placeholders; of the last prompt token without any.
        last_row: Position of the last token.
    """

    embeddings: torch.Tensor
    visual: slice
    action_rows: slice
    last_row: int


class OpenVlaNetwork(nn.Module):
    """From pixels and token ids to the decoder's input; the decoder itself is run by its driver."""

    def __init__(self, sizes: NetworkSizes, *, with_lm_head: bool) -> None:
        """Build every module on the current default device.

        Args:
            sizes: All sizes.
            with_lm_head: Whether tokens are predicted; a regression head needs none.
        """
        super().__init__()
        llama = sizes.llama
        self.vision = FusedVision(sizes.towers, sizes.means, sizes.stds)
        self.projector = GeluProjector(sizes.projector)
        self._projector_widths = sizes.projector
        self.decoder = LlamaModel(llama).eval()
        use_tapping_attention(self.decoder)
        self.lm_head = (
            nn.Linear(llama.hidden_size, llama.vocab_size, bias=False) if with_lm_head else None
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast('torch.device', self.decoder.norm.weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return cast('torch.dtype', self.decoder.norm.weight.dtype)

    def encode(self, pixels: torch.Tensor, watch: StageTimer | None = None) -> torch.Tensor:
        """Turn pixel values into visual tokens.

        Args:
            pixels: [C, 3 * towers, S, S].
            watch: Takes the time of ``encode`` and its parts ``vision`` and ``projector``.

        Returns:
            [N, D], camera by camera.
        """
        watch = watch or StageTimer(self.device)
        with watch.stage('encode'):
            with watch.stage('vision'):
                features = self.vision(pixels)
            with watch.stage('projector'):
                return cast('torch.Tensor', self.projector(features)).flatten(0, 1)

    def encode_macs(self, cameras: int) -> dict[str, int]:
        """Count the multiply-accumulates of the stages of ``encode``.

        Args:
            cameras: C.
        """
        projector = sum(a * b for a, b in pairwise(self._projector_widths))
        return {
            'vision': cameras * sum(tower.macs for tower in self.vision.sizes),
            'projector': cameras * self.vision.grid**2 * projector,
        }

    def decode(
        self,
        sequence: InputSequence,
        *,
        cameras: int,
        causal: bool,
        episode: EpisodeState,
        pruning: PruningSettings,
        stamp_s: float,
        pixels: torch.Tensor | None = None,
        use_cache: bool = False,
        pruner: Pruner | None = None,
    ) -> DecoderOutput:
        """Run the decoder on a sequence; see ``decoder.run_decoder`` for what is not said here.

        Args:
            sequence: From ``assemble``.
            cameras: C, images that the visual tokens come from.
            causal: Whether a row sees only itself and what stands before it.
            episode: The pruner's memory.
            pruning: How to prune.
            stamp_s: Time of the observation, seconds.
            pixels: What the visual tokens were made from, for methods that compare images.
            use_cache: Also return keys and values.
            pruner: Runs instead of the method that the settings name.

        Raises:
            NonFiniteError: Tokens, attention or hidden states hold NaN or infinity.
        """
        tokens = sequence.visual.stop - sequence.visual.start
        layout = SequenceLayout(
            length=sequence.embeddings.shape[1],
            visual=sequence.visual,
            tokens_per_camera=(tokens // cameras,) * cameras,
            last_row=sequence.last_row,
            action_rows=sequence.action_rows,
            causal=causal,
            grids=((self.vision.grid, self.vision.grid),) * cameras,
        )
        return run_decoder(
            self.decoder,
            sequence.embeddings,
            layout=layout,
            episode=episode,
            settings=pruning,
            stamp_s=stamp_s,
            use_cache=use_cache,
            patches=None if pixels is None else lambda: self.vision.patches(pixels),
            pruner=pruner,
        )

    def embed(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the embeddings [T, D] of token ids."""
        return cast('torch.Tensor', self.decoder.embed_tokens(torch.tensor(ids).to(self.device)))

    def predict_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """Return the most likely next token ids [R] of final hidden states [R, D].

        Raises:
            ValueError: The network was built without its lm_head.
        """
        if self.lm_head is None:
            msg = 'the network was loaded without lm_head'
            raise ValueError(msg)
        logits: torch.Tensor = self.lm_head(states)
        return logits.argmax(dim=-1)

    def assemble(
        self,
        visual: torch.Tensor,
        prompt_ids: Sequence[int],
        *,
        proprio: torch.Tensor | None = None,
        placeholders: int = 0,
    ) -> InputSequence:
        """Put the sequence together: begin | visual | proprio | prompt | zero slots and stop.

        Args:
            visual: Visual tokens [N, D].
            prompt_ids: Ids of the prompt, the beginning of sequence first.
            proprio: Proprioception token [1, D], or None.
            placeholders: Action slots; 0 for autoregressive decoding, which has no stop either.

        Raises:
            ObservationError: The sequence is longer than the decoder has positions.
        """
        text = self.embed(prompt_ids)
        parts = [text[:1], visual, *([] if proprio is None else [proprio]), text[1:]]
        if placeholders:
            parts += [text.new_zeros(placeholders, text.shape[1]), self.embed([STOP_ID])]
        embeddings = torch.cat(parts)[None]
        length = embeddings.shape[1]
        allowed = self.decoder.config.max_position_embeddings
        if length > allowed:
            msg = (
                f'the instruction is too long: with {len(prompt_ids)} prompt tokens the sequence '
                f'has {length}, the decoder has positions for {allowed}'
            )
            raise ObservationError(msg)
        last = length - 1
        actions = slice(last - placeholders, last) if placeholders else slice(last, length)
        return InputSequence(embeddings, slice(1, 1 + len(visual)), actions, last)


def build_network(sizes: NetworkSizes, *, with_lm_head: bool) -> OpenVlaNetwork:
    """Build the network on the meta device: no memory, no random numbers."""
    with torch.device('meta'):
        return OpenVlaNetwork(sizes, with_lm_head=with_lm_head)


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """Return the number format that the decoder is stored in.

    Raises:
        CheckpointError: Its last norm is missing.
    """
    return checkpoint.tensor(f'{_LLAMA}.norm.weight').dtype


def load_network(
    checkpoint: Checkpoint,
    sizes: NetworkSizes,
    *,
    with_lm_head: bool,
    device: torch.device,
    dtype: torch.dtype,
    progress: Callable[[float], None] | None = None,
) -> OpenVlaNetwork:
    """Load the network without ever holding its weights twice.

    Args:
        checkpoint: The opened checkpoint.
        sizes: Its sizes.
        with_lm_head: Whether tokens are predicted.
        device: Where the weights go.
        dtype: What they become.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: A weight is missing, has another shape, or cannot be read.
    """
    try:
        network = build_network(sizes, with_lm_head=with_lm_head)
    except Exception as error:  # what the library says of values that only it knows
        msg = f'{checkpoint.path / "config.json"}: no network can be built: {error}'
        raise CheckpointError(msg) from error
    # Shapes are compared before the first byte is read, so a wrong directory fails at once.
    sources = {
        f'decoder.{name}': checkpoint.tensor(f'{_LLAMA}.{name}')
        for name, _ in network.decoder.named_parameters()
    }
    for name, _ in network.projector.named_parameters():
        sources[f'projector.{name}'] = checkpoint.tensor(f'projector.{name}')
    if network.lm_head is not None:
        tied = sizes.llama.tie_word_embeddings and _LM_HEAD not in checkpoint.tensors
        key = f'{_LLAMA}.embed_tokens.weight' if tied else _LM_HEAD
        sources['lm_head.weight'] = checkpoint.tensor(key)
    for name, stored in sources.items():
        check_shape(stored, tuple(network.get_parameter(name).shape))
    _refuse_unknown(checkpoint, sizes, {stored.key for stored in sources.values()})
    towers = [tower_sources(checkpoint, tower) for tower in sizes.towers]
    total = sum(stored.nbytes for part in (sources, *towers) for stored in part.values())
    read = ReadBytes(total, progress)
    load_vision(network.vision, checkpoint, device=device, dtype=dtype, read=read)
    load_parameters(network, sources, device=device, dtype=dtype, read=read)
    place_buffers(network, device)
    return network


def _refuse_unknown(checkpoint: Checkpoint, sizes: NetworkSizes, used: set[str]) -> None:
    """Refuse weights inside the used parts that this network has no place for (FiLM, biases)."""
    prefixes = [f'{_LLAMA}.', 'projector.']
    for tower in sizes.towers:
        used |= {stored.key for stored in tower_sources(checkpoint, tower).values()}
        prefixes += [f'{tower.prefix}.blocks.{block}.' for block in range(tower.blocks)]
    for key, stored in sorted(checkpoint.tensors.items()):
        known = stored.key in used or key.endswith('rotary_emb.inv_freq')
        if key.startswith(tuple(prefixes)) and not known:
            msg = f'{stored.path}: {stored.key} belongs to no part of a network of these sizes'
            raise CheckpointError(msg)


def place_buffers(network: OpenVlaNetwork, device: torch.device) -> None:
    """Make the buffers that no checkpoint stores, after building on the meta device."""
    decoder = network.decoder
    decoder.rotary_emb = type(decoder.rotary_emb)(decoder.config).to(device)
    network.vision.place_buffers(device)
