"""CogACT's pass: one prefill, the state of its last token, and actions denoised from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.ddim import DenoisedStep, sample
from safe_vla_ros.policies.diffusion_transformer import DiffusionTransformer
from safe_vla_ros.policies.openvla_network import OpenVlaNetwork
from safe_vla_ros.policies.openvla_policy import Prediction
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import Pruner
from safe_vla_ros.types import Float32Array, PruningSettings

_GRIPPER_THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True)
class CogActPrediction(Prediction):
    """A prediction with what the actions were made of.

    Attributes:
        raw_actions: What the head sampled, before clipping and the gripper's rule, float32 [T, A].
    """

    raw_actions: Float32Array


class CogActModel:
    """The network with its diffusion head; implements ``openvla_policy.ActionModel``."""

    def __init__(
        self,
        network: OpenVlaNetwork,
        head: DiffusionTransformer,
        *,
        guidance: float,
        ddim_steps: int,
        seed: int = 0,
    ) -> None:
        """Put the parts together; ``cogact.load_model`` does that from a directory.

        Args:
            network: Towers, projector and decoder.
            head: Tells the noise in actions, given the cognition token's state.
            guidance: Strength of the guidance; 1 runs without it.
            ddim_steps: Denoising steps.
            seed: Seed of every episode's noise.
        """
        self.network = network
        self.head = head
        self.guidance = guidance
        self.ddim_steps = ddim_steps
        self._seed = seed

    def new_episode(self) -> NoisyEpisode:
        """Return an empty memory of the pruner with noise of its own."""
        return NoisyEpisode(self._seed)

    @torch.inference_mode()
    def predict(
        self,
        pixels: torch.Tensor,
        prompt_ids: Sequence[int],
        proprio: torch.Tensor | None,  # noqa: ARG002  (CogACT takes none)
        *,
        episode: NoisyEpisode,
        pruning: PruningSettings,
        stamp_s: float,
        observe: Callable[[DenoisedStep], None] | None = None,
        pruner: Pruner | None = None,
    ) -> CogActPrediction:
        """Prune in the prefill; the cognition token, the last row, cannot be dropped.

        Args:
            pixels: Pixel values [C, 3 * towers, S, S].
            prompt_ids: Ids of the prompt, the cognition token last.
            proprio: None.
            episode: The episode's memory, from ``new_episode``.
            pruning: How to prune.
            stamp_s: Time of the observation, seconds.
            observe: Called with every denoising step.
            pruner: Runs instead of the method that ``pruning`` names.

        Raises:
            NonFiniteError: Tokens, attention, hidden states or actions hold NaN or infinity.
            ObservationError: The prompt is too long for the decoder.
        """
        network, sizes = self.network, self.head.sizes
        watch = StageTimer(network.device)
        sequence = network.assemble(network.encode(pixels, watch), prompt_ids)
        with episode.noise(sizes.chunk_size, sizes.action_dim) as noise:
            output = network.decode(
                sequence,
                cameras=len(pixels),
                causal=True,
                episode=episode.pruning,
                pruning=pruning,
                stamp_s=stamp_s,
                pixels=pixels,
                pruner=pruner,
            )
            with watch.stage('head'):
                cognition = output.rows(sequence.action_rows)[0]
                sampled = sample(
                    self.head,
                    noise.to(self.head.device),
                    cognition.float(),
                    uncondition=self.head.uncondition,
                    guidance=self.guidance,
                    steps=self.ddim_steps,
                    observe=observe,
                )
                raw = sampled.cpu().numpy()
            if not np.isfinite(raw).all():
                msg = 'actions of the diffusion head: NaN or infinity'
                raise NonFiniteError(msg)
        return CogActPrediction(
            finish_actions(raw), cognition, output, watch, self.head_macs(), raw_actions=raw
        )

    def head_macs(self) -> int:
        """Count the multiply-accumulates of all denoising steps, guided ones twice."""
        return self.ddim_steps * (2 if self.guidance > 1.0 else 1) * self.head.sizes.macs


def finish_actions(raw: Float32Array) -> Float32Array:
    """Clip sampled actions to [-1, 1], and open or close the gripper, the last number, wholly.

    Args:
        raw: Sampled actions, float32 [T, A].

    Returns:
        Normalised actions, float32 [T, A]; the gripper is 0 below 0.5, otherwise 1.
    """
    actions = np.clip(raw, -1.0, 1.0)
    actions[:, -1] = actions[:, -1] >= _GRIPPER_THRESHOLD
    return actions
