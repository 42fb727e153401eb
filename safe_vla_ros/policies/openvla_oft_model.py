"""OpenVLA-OFT's pass: placeholders in, the whole action chunk out, attention in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from safe_vla_ros.policies.heads import GeluProjector, L1ActionHead, decode_action_tokens
from safe_vla_ros.policies.openvla_network import OpenVlaNetwork
from safe_vla_ros.policies.openvla_policy import Prediction
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import EpisodeState, make_episode
from safe_vla_ros.types import Float32Array, Float64Array, PruningSettings


class OftModel:
    """The network with its action head; implements ``openvla_policy.ActionModel``."""

    def __init__(
        self,
        network: OpenVlaNetwork,
        head: L1ActionHead | None,
        proprio_projector: GeluProjector | None,
        *,
        chunk_size: int,
        action_dim: int,
        action_slice: str = 'oft',
        token_bins: tuple[int, int] = (32000, 256),
    ) -> None:
        """Put the parts together; ``load_model`` does that from a directory.

        Args:
            network: Towers, projector and decoder.
            head: L1 regression head; None reads discrete tokens with the network's lm_head.
            proprio_projector: None when the model takes no proprioception.
            chunk_size: T, actions per chunk.
            action_dim: A, numbers per action.
            action_slice: ``oft`` reads the states that predict the placeholders (one position
                before them, as trained), ``shifted`` those of the placeholders themselves.
            token_bins: Vocabulary without padding, and bin edges, of discrete tokens.
        """
        self.network = network
        self.head = head
        self.proprio_projector = proprio_projector
        self.chunk_size = chunk_size
        self.action_dim = action_dim
        self.action_slice = action_slice
        self.token_bins = token_bins

    def new_episode(self) -> EpisodeState:
        """Return an empty memory of the pruner."""
        return make_episode()

    @torch.inference_mode()
    def predict(
        self,
        pixels: torch.Tensor,
        prompt_ids: Sequence[int],
        proprio: torch.Tensor | None,
        *,
        episode: EpisodeState,
        pruning: PruningSettings,
        stamp_s: float,
        query_rows: slice | None = None,
    ) -> Prediction:
        """Run one step; see ``openvla_policy.ActionModel``.

        Args:
            pixels: Pixel values [C, 3 * towers, S, S].
            prompt_ids: Ids of the prompt.
            proprio: Normalised proprioception, float [P], or None.
            episode: The pruner's memory.
            pruning: How to prune.
            stamp_s: Time of the observation, seconds.
            query_rows: Rows that ``query_rows: action`` stands for, as a slice of the sequence;
                the action placeholders unless given.

        Raises:
            NonFiniteError: Tokens, attention or hidden states hold NaN or infinity.
            ObservationError: The prompt is too long for the decoder.
        """
        network = self.network
        watch = StageTimer(network.device)
        sequence = network.assemble(
            network.encode(pixels, watch),
            prompt_ids,
            proprio=self.proprio_token(proprio),
            placeholders=self.chunk_size * self.action_dim,
        )
        placeholders = sequence.action_rows
        if query_rows is not None:
            rows = slice(*query_rows.indices(sequence.last_row + 1))
            sequence = replace(sequence, action_rows=rows)
        output = network.decode(
            sequence,
            cameras=len(pixels),
            causal=False,
            episode=episode,
            pruning=pruning,
            stamp_s=stamp_s,
            pixels=pixels,
        )
        with watch.stage('head'):
            states = output.rows(self._read_out(placeholders))[0]
            actions = self._actions(states)
        return Prediction(actions, states, output, watch)

    def proprio_token(self, proprio: torch.Tensor | None) -> torch.Tensor | None:
        """Return the token [1, D] of normalised proprioception [P]; None when there is none."""
        if self.proprio_projector is None or proprio is None:
            return None
        values = proprio.to(self.network.device, self.network.dtype)
        token: torch.Tensor = self.proprio_projector(values)[None]
        return token

    def _read_out(self, placeholders: slice) -> slice:
        earlier = 1 if self.action_slice == 'oft' else 0
        return slice(placeholders.start - earlier, placeholders.stop - earlier)

    def _actions(self, states: torch.Tensor) -> Float32Array | Float64Array:
        if self.head is not None:
            values: Float32Array = self.head(states).cpu().numpy()
            return values
        tokens = self.network.predict_tokens(states)
        actions = decode_action_tokens(tokens, *self.token_bins)
        return actions.reshape(self.chunk_size, self.action_dim)
