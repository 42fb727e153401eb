"""One inference of pi0 or pi0.5: prefix, taps, denoising, and what was pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safe_vla_ros.policies.action_expert import DenoisedStep, StoredPrefix, Taps
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.attention import SaliencyTap
from safe_vla_ros.policies.decoder import DecoderOutput, OpenPass, layer_widths, run_layers
from safe_vla_ros.policies.patches import image_patches
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import SequenceLayout, pass_macs

if TYPE_CHECKING:
    from safe_vla_ros.policies.pi_network import PiNetwork
    from safe_vla_ros.pruning import Pruner
    from safe_vla_ros.types import Float32Array, PruningSettings

ReadAttention = Callable[[int, OpenPass], Taps]
"""What else is read in a denoising step, given its number and the prefix."""


@dataclass(frozen=True)
class PiPrediction:
    """What the model says about one observation.

    Attributes:
        actions: Normalised actions, all columns, float32 [T, A].
        output: The pass of the prefix with what was pruned.
        expert_macs: Multiply-accumulates of all denoising steps.
        stopwatch: Time of the stages around the prefix: ``encode`` (of it ``vision``,
            projector included) and ``expert``.
    """

    actions: Float32Array
    output: DecoderOutput
    expert_macs: int
    stopwatch: StageTimer


class PiModel:
    """A network with its way of denoising."""

    def __init__(
        self,
        network: PiNetwork,
        *,
        chunk_size: int,
        num_steps: int,
        time_rule: str,
        saliency_steps: Sequence[int],
        seed: int = 0,
    ) -> None:
        """Remember how to denoise.

        Args:
            network: The network.
            chunk_size: T.
            num_steps: N.
            time_rule: See ``PiOptions``.
            saliency_steps: Steps whose attention the pruner is told.
            seed: Seed of every episode's noise.
        """
        self.network = network
        self.chunk_size = chunk_size
        self._num_steps = num_steps
        self._time_rule = time_rule
        self._saliency_steps = frozenset(saliency_steps)
        self._seed = seed

    def new_episode(self) -> NoisyEpisode:
        """Return an empty memory; its noise starts with the model's seed."""
        return NoisyEpisode(self._seed)

    @torch.inference_mode()
    def predict(
        self,
        pixels: Tensor,
        prompt_ids: Sequence[int],
        state: Tensor | None,
        *,
        episode: NoisyEpisode,
        pruning: PruningSettings,
        stamp_s: float,
        pruner: Pruner | None = None,
        observe: Callable[[DenoisedStep], None] | None = None,
        read: ReadAttention | None = None,
    ) -> PiPrediction:
        """Run one step.

        Args:
            pixels: Pixel values of the present cameras, float32 [C, 3, S, S] from -1 to 1.
            prompt_ids: Ids of the prompt without padding.
            state: Normalised state, padded to the model's width, float32 [P]; pi0 only.
            episode: The episode's memory, with its noise.
            pruning: How to prune.
            stamp_s: Time of the observation, seconds.
            pruner: Runs instead of the method that the settings name.
            observe: Told of every denoising step.
            read: Makes more taps for the expert, for checks.

        Raises:
            NonFiniteError: Tokens, attention or actions hold NaN or infinity.
            ParameterError: The settings do not fit the model.
        """
        network, shape = self.network, (1, self.chunk_size, self.network.sizes.action_width)
        watch = StageTimer(network.device)
        with watch.stage('encode'):
            with watch.stage('vision'):
                visual = network.encode(pixels)
            prefix = network.assemble(visual, prompt_ids)
        length = prefix.shape[1]
        with episode.noise(*shape) as noise:
            opened = run_layers(
                network.decoder,
                prefix,
                layout=SequenceLayout(
                    length=length,
                    visual=slice(0, len(visual)),
                    tokens_per_camera=(network.grid**2,) * len(pixels),
                    last_row=length - 1,
                    action_rows=None,
                ),
                episode=episode.pruning,
                settings=pruning,
                stamp_s=stamp_s,
                use_cache=True,
                patches=lambda: image_patches(pixels, network.grid, network.grid).flatten(0, 1),
                pruner=pruner,
            )
            stored = _stored(opened, length)
            late = _LateTaps(opened, network.expert.action_rows(self.chunk_size))

            def taps(step: int) -> Taps:
                more = {} if read is None else read(step, opened)
                return {**(late.make() if step in self._saliency_steps else {}), **more}

            with watch.stage('expert'):
                actions = network.expert.denoise(
                    noise.to(network.device),
                    None if state is None else state[None].to(network.device),
                    stored,
                    num_steps=self._num_steps,
                    time_rule=self._time_rule,
                    taps=taps,
                    observe=observe,
                )
                late.answer()
            output = opened.finish({'actions of the expert': actions})
        return PiPrediction(
            actions=actions[0].cpu().numpy(),
            output=output,
            expert_macs=self.expert_macs([keys.shape[2] for keys in stored.keys]),
            stopwatch=watch,
        )

    def expert_macs(self, stored_keys: Sequence[int]) -> int:
        """Count all denoising steps.

        Args:
            stored_keys: Keys that the prefix has stored, by layer.

        Returns:
            Multiply-accumulates of the expert's layers, their adaptive norms, and the projections
            of actions, state and time.
        """
        expert = self.network.expert
        rows: int = expert.action_rows(self.chunk_size).stop
        width, columns = int(expert.config.hidden_size), expert.action_width
        layers = pass_macs(
            [(rows, keys + rows) for keys in stored_keys], **layer_widths(expert.config)
        )
        ends = 2 * self.chunk_size * columns * width
        if expert.adaptive:
            norms = (2 * len(stored_keys) + 1) * 3 * width * width
            around = 2 * width * width + norms
        else:
            around = 3 * self.chunk_size * width * width + self.network.sizes.state_width * width
        return self._num_steps * (layers + ends + around)


class _LateTaps:
    """Asks the expert what the pruner wants to know, and averages over denoising steps."""

    def __init__(self, opened: OpenPass, rows: slice) -> None:
        self._opened = opened
        self._rows = rows
        self._made: list[dict[int, SaliencyTap]] = []

    def make(self) -> dict[int, SaliencyTap]:
        opened = self._opened
        taps = {
            layer: SaliencyTap(self._rows, late.columns, opened.stopwatch, late.tap.read)
            for layer, late in opened.late_taps.items()
        }
        self._made.append(taps)
        return taps

    def answer(self) -> None:
        for layer, late in self._opened.late_taps.items():
            answers = [taps[layer].answer for taps in self._made]
            mean = torch.stack([answer[0] for answer in answers if answer is not None]).mean(dim=0)
            plain = late.tap.read is None
            self._opened.observe(layer, late.spread(mean) if plain else mean)


def _stored(opened: OpenPass, length: int) -> StoredPrefix:
    cache = opened.cache
    if cache is None:
        raise ValueError('the prefix was run without a cache')
    return StoredPrefix(
        keys=tuple(layer.keys for layer in cache.layers),
        values=tuple(layer.values for layer in cache.layers),
        biases=tuple(opened.biases),
        length=length,
    )
