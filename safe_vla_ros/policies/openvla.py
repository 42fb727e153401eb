"""OpenVLA checkpoints: one action as seven tokens, decoded one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from safe_vla_ros.policies import openvla_oft
from safe_vla_ros.policies.checkpoint import Checkpoint, open_checkpoint
from safe_vla_ros.policies.decoder import DecoderOutput, decode_token
from safe_vla_ros.policies.device import choose_device, choose_dtype
from safe_vla_ros.policies.heads import decode_action_tokens
from safe_vla_ros.policies.openvla_config import (
    NetworkSizes,
    OpenVlaOptions,
    read_options,
    read_sizes,
    read_token_bins,
)
from safe_vla_ros.policies.openvla_network import OpenVlaNetwork, load_network, stored_dtype
from safe_vla_ros.policies.openvla_policy import (
    OpenVlaPolicy,
    Prediction,
    read_normalizers,
    refuse_unsupported,
    tokenizer_of,
)
from safe_vla_ros.policies.packed_linear import pack_for_cpu
from safe_vla_ros.policies.spec import apply_policy_file
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import EpisodeState, make_episode
from safe_vla_ros.types import PolicySettings, PolicySpec, PruningSettings

_PARALLEL = 'parallel'


class AutoregressiveModel:
    """The network decoding action tokens greedily; implements ``openvla_policy.ActionModel``."""

    def __init__(
        self, network: OpenVlaNetwork, *, action_dim: int, token_bins: tuple[int, int]
    ) -> None:
        """Put the parts together; ``load_model`` does that from a directory.

        Args:
            network: Towers, projector, decoder and lm_head.
            action_dim: A, tokens per action.
            token_bins: Vocabulary without padding, and bin edges.
        """
        self.network = network
        self.action_dim = action_dim
        self.token_bins = token_bins

    def new_episode(self) -> EpisodeState:
        """Return an empty memory of the pruner."""
        return make_episode()

    @torch.inference_mode()
    def predict(
        self,
        pixels: torch.Tensor,
        prompt_ids: Sequence[int],
        proprio: torch.Tensor | None,  # noqa: ARG002  (OpenVLA takes none)
        *,
        episode: EpisodeState,
        pruning: PruningSettings,
        stamp_s: float,
    ) -> Prediction:
        """Prune in the prefill, then decode with the ragged cache; see ``ActionModel``.

        Raises:
            NonFiniteError: Tokens, attention or hidden states hold NaN or infinity.
            ObservationError: The prompt is too long for the decoder.
        """
        network = self.network
        watch = StageTimer(network.device)
        sequence = network.assemble(network.encode(pixels, watch), prompt_ids)
        output = network.decode(
            sequence,
            cameras=len(pixels),
            causal=True,
            episode=episode,
            pruning=pruning,
            stamp_s=stamp_s,
            pixels=pixels,
            use_cache=True,
        )
        with watch.stage('generate'):
            states = self._generate(output.rows(sequence.action_rows), output)
        with watch.stage('head'):
            tokens = network.predict_tokens(states)
            actions = decode_action_tokens(tokens, *self.token_bins)[None]
        return Prediction(actions, states, output, watch)

    def _generate(self, state: torch.Tensor, output: DecoderOutput) -> torch.Tensor:
        """Return the final hidden states [A, D] from which the tokens are read."""
        cache = output.cache
        assert cache is not None
        states = [state[0, -1:]]
        for step in range(self.action_dim - 1):
            token = self.network.predict_tokens(states[-1])
            embedding = self.network.decoder.embed_tokens(token)[None]
            state = decode_token(
                self.network.decoder,
                embedding,
                position=output.length + step,
                cache=cache,
                key_bias=output.key_bias,
            )
            states.append(state[0])
        return torch.cat(states)


def read_spec(path: Path) -> PolicySpec:
    """Read what an OpenVLA directory says about itself; no weights are loaded.

    Args:
        path: The checkpoint directory.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
    """
    options = read_options(path)
    if options.decoding == _PARALLEL:
        return openvla_oft.read_spec(path)
    refuse_unsupported(path)
    checkpoint = open_checkpoint(path)
    return _spec(checkpoint, read_sizes(checkpoint, options.vision_heads))


def _spec(checkpoint: Checkpoint, sizes: NetworkSizes) -> PolicySpec:
    spec = PolicySpec(
        name=checkpoint.path.name,
        kind='openvla',
        cameras=(),
        num_cameras=1,
        chunk_size=1,
        num_layers=sizes.llama.num_hidden_layers,
        proprio_dim=0,
        execute_steps=1,
        unnorm_keys=tuple(checkpoint.statistics()),
    )
    return apply_policy_file(spec, checkpoint.path)


def load(
    path: Path, settings: PolicySettings, progress: Callable[[float], None] | None = None
) -> OpenVlaPolicy:
    """Load an OpenVLA directory as a policy.

    Everything small is checked before the large weights are read.

    Args:
        path: The checkpoint directory.
        settings: Complete settings.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
        ParameterError: Device or dtype cannot be had.
    """
    options = read_options(path)
    if options.decoding == _PARALLEL:
        return openvla_oft.load(path, settings, progress)
    refuse_unsupported(path)
    checkpoint = open_checkpoint(path)
    sizes = read_sizes(checkpoint, options.vision_heads)
    encoder = tokenizer_of(path, options.prompt, sizes.llama.vocab_size)

    def normalization(name: str, content: Mapping[str, Any]) -> str:  # noqa: ARG001
        return options.normalization or 'bounds_q99'

    normalizers = read_normalizers(
        checkpoint.statistics(),
        settings.unnorm_key,
        normalization=normalization,
        where=path,
        proprio=False,
        epsilon=0.0,
    )
    return OpenVlaPolicy(
        _spec(checkpoint, sizes),
        settings,
        normalizers,
        encoder.encode,
        lambda: load_model(
            path,
            options,
            action_dim=len(normalizers.actions),
            device=settings.device,
            dtype=settings.dtype,
            progress=progress,
        ),
    )


def load_model(
    path: Path,
    options: OpenVlaOptions | None = None,
    *,
    action_dim: int = 7,
    device: str = 'auto',
    dtype: str = 'auto',
    progress: Callable[[float], None] | None = None,
) -> AutoregressiveModel:
    """Load the network; neither tokenizer nor statistics are needed.

    Args:
        path: The checkpoint directory.
        options: What its files leave open; read from ``policy.yaml`` when None.
        action_dim: A, tokens per action.
        device: ``auto``, ``cpu`` or ``cuda``.
        dtype: ``auto``, ``float32`` or ``bfloat16``; auto keeps the checkpoint's on the CPU.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
        ParameterError: Device or dtype cannot be had.
    """
    checkpoint = open_checkpoint(path)
    options = read_options(path) if options is None else options
    sizes = read_sizes(checkpoint, options.vision_heads)
    place = choose_device(device)
    precision = choose_dtype(dtype, place, stored_dtype(checkpoint))
    network = load_network(
        checkpoint, sizes, with_lm_head=True, device=place, dtype=precision, progress=progress
    )
    pack_for_cpu(network, device=place, dtype=precision)
    return AutoregressiveModel(
        network, action_dim=action_dim, token_bins=read_token_bins(checkpoint, sizes)
    )
