"""pi0.5 with random weights: what the speed benchmark runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import GemmaConfig, SiglipVisionConfig

from safe_vla_ros.bench.speed_models import SpeedStep
from safe_vla_ros.bench.speed_weights import RandomWeights
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.pi_images import fit_image
from safe_vla_ros.policies.pi_model import PiModel
from safe_vla_ros.policies.pi_network import build_network, parameter_dtype, place_buffers
from safe_vla_ros.policies.pi_options import BILINEAR, BLACK, EXACT_TIME
from safe_vla_ros.policies.pi_sizes import ACTIVATION, NORM_EPSILON, PiSizes
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import EpisodeState
from safe_vla_ros.types import PruningSettings, UInt8Array

PI05_LAYERS, CHUNK_SIZE, NUM_STEPS, ACTION_WIDTH = 18, 50, 10, 32


def pi05_sizes(layers: int) -> PiSizes:
    """Sizes of pi0.5 with another number of layers in both Gemmas (18 is the real one)."""

    def gemma(width: int, mlp_width: int) -> GemmaConfig:
        return GemmaConfig(
            vocab_size=257_152,
            hidden_size=width,
            intermediate_size=mlp_width,
            num_hidden_layers=layers,
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=256,
            hidden_act=ACTIVATION,
            rms_norm_eps=NORM_EPSILON,
            pad_token_id=0,
        )

    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=224,
        patch_size=14,
        hidden_act=ACTIVATION,
        layer_norm_eps=NORM_EPSILON,
        vision_use_head=False,
        attn_implementation='sdpa',
    )
    return PiSizes(
        kind='pi05',
        vision=vision,
        prefix=gemma(2048, 16_384),
        expert=gemma(1024, 4096),
        action_width=ACTION_WIDTH,
        state_width=ACTION_WIDTH,
        periods=(4e-3, 4.0),
    )


class PiSpeedModel:
    """pi0.5 through the classes that load real checkpoints; implements ``SpeedModel``."""

    cameras = 3
    image_size = 256

    def __init__(
        self,
        sizes: PiSizes,
        *,
        prompt_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        network = build_network(sizes)
        RandomWeights(seed, dtype).materialise(
            network, device, lambda name: parameter_dtype(name, dtype, torch.float32)
        )
        place_buffers(network, device)
        self.module = network.matrices()
        self._network = network
        self._model = PiModel(
            network,
            chunk_size=CHUNK_SIZE,
            num_steps=NUM_STEPS,
            time_rule=EXACT_TIME,
            saliency_steps=(NUM_STEPS - 1,),
            seed=seed,
        )
        self._prompt_ids = [2, *range(5, 4 + prompt_tokens)]

    def run(
        self, images: Sequence[UInt8Array], episode: EpisodeState, settings: PruningSettings
    ) -> SpeedStep:
        """Prepare, encode, run the prefix and denoise, as the policy does."""
        watch = StageTimer(torch.device('cpu'))
        memory = NoisyEpisode(0)
        memory.pruning = episode
        size = self._network.sizes.vision.image_size
        with watch.stage('total'):
            with watch.stage('prepare'):
                pixels = torch.stack(
                    [fit_image(image, size, resize=BILINEAR, padding=BLACK) for image in images]
                )
            prediction = self._model.predict(
                pixels, self._prompt_ids, None, episode=memory, pruning=settings, stamp_s=0.0
            )
        output = prediction.output
        stages = {
            **watch.milliseconds(),
            **prediction.stopwatch.milliseconds(),
            **output.stage_ms,
        }
        return SpeedStep(stages, output, output.macs)

    def outside_macs(self, images: Sequence[UInt8Array]) -> int:
        """Count vision tower, projector and all denoising steps over an unpruned prefix."""
        encode = self._network.encode_macs(len(images))
        length = len(images) * self._network.grid**2 + len(self._prompt_ids)
        layers = self._network.sizes.prefix.num_hidden_layers
        return sum(encode.values()) + self._model.expert_macs([length] * layers)
