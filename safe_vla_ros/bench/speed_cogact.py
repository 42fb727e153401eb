"""CogACT with random weights: what the speed benchmark runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from safe_vla_ros.bench.speed_models import SpeedStep, openvla_sizes
from safe_vla_ros.bench.speed_weights import RandomWeights
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.cogact import build_head
from safe_vla_ros.policies.cogact_config import CogActOptions, CogActSizes
from safe_vla_ros.policies.cogact_model import CogActModel
from safe_vla_ros.policies.diffusion_transformer import DitSizes
from safe_vla_ros.policies.image_preparation import ImagePreparation, resize_bicubic
from safe_vla_ros.policies.openvla_network import build_network, place_buffers
from safe_vla_ros.policies.prompt import end_with_cognition_token
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import EpisodeState
from safe_vla_ros.types import PruningSettings, UInt8Array


def cogact_base_sizes(layers: int) -> CogActSizes:
    """Sizes of CogACT-Base with another number of decoder layers (32 is the real one)."""
    network = openvla_sizes(layers)
    llama = network.llama
    llama.rms_norm_eps = 1e-5
    head = DitSizes(
        width=768,
        blocks=12,
        heads=12,
        mlp_width=3072,
        frequencies=256,
        condition_width=llama.hidden_size,
        chunk_size=16,
        action_dim=7,
    )
    return CogActSizes(replace(network, llama=llama), head)


class CogActSpeedModel:
    """CogACT through the classes that load real checkpoints; implements ``SpeedModel``."""

    cameras = 1
    image_size = 256

    def __init__(
        self,
        sizes: CogActSizes,
        *,
        prompt_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        weights = RandomWeights(seed, dtype)
        network = build_network(sizes.network, with_lm_head=False)
        weights.materialise(network, device, dtype)
        place_buffers(network, device)
        head = build_head(sizes.head)
        RandomWeights(seed, torch.float32).materialise(head, device, torch.float32)
        options = CogActOptions()
        self.module = network.eval()
        self._model = CogActModel(
            network, head, guidance=options.cfg_scale, ddim_steps=options.ddim_steps
        )
        self._prompt_ids = end_with_cognition_token([1, *range(3, 1 + prompt_tokens)])
        self._prepare = ImagePreparation(network.vision.image_size, resize=resize_bicubic)

    def run(
        self, images: Sequence[UInt8Array], episode: EpisodeState, settings: PruningSettings
    ) -> SpeedStep:
        """Prepare, encode, decode and denoise actions, as the policy does."""
        watch = StageTimer(torch.device('cpu'))
        memory = NoisyEpisode(0)
        memory.pruning = episode
        with watch.stage('total'):
            with watch.stage('prepare'):
                prepared = np.stack([self._prepare(image) for image in images])
                pixels = self._model.network.vision.normalize(torch.from_numpy(prepared))
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
        """Count vision towers, projector and all denoising steps."""
        encode = self._model.network.encode_macs(len(images))
        return sum(encode.values()) + self._model.head_macs()
