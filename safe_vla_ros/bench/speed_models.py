"""Policies at real sizes with random weights: what the speed benchmark runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig

from safe_vla_ros.bench.speed_weights import RandomWeights
from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.decoder import DecoderOutput, run_decoder
from safe_vla_ros.policies.heads import GeluProjector, L1ActionHead
from safe_vla_ros.policies.image_preparation import ImagePreparation
from safe_vla_ros.policies.mini import prepare_image
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.policies.openvla import AutoregressiveModel
from safe_vla_ros.policies.openvla_config import NetworkSizes
from safe_vla_ros.policies.openvla_network import build_network, place_buffers
from safe_vla_ros.policies.openvla_oft_model import OftModel
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.policies.vision_sizes import TowerSizes
from safe_vla_ros.pruning import EpisodeState
from safe_vla_ros.pruning.flops import pass_macs
from safe_vla_ros.types import PruningSettings, UInt8Array

SHAPES = ('openvla-oft-7b', 'openvla-7b', 'pi05', 'cogact-base', 'mini')
CHUNK_SIZE, ACTION_DIM, PROPRIO_DIM, HEAD_BLOCKS = 8, 7, 8, 2


@dataclass(frozen=True)
class SpeedStep:
    """One inference.

    Attributes:
        stage_ms: Milliseconds by stage; ``total`` is image to action.
        output: The decoder's pass.
        macs: Multiply-accumulates of the decoder, generated tokens included.
    """

    stage_ms: dict[str, float]
    output: DecoderOutput
    macs: int


class SpeedModel(Protocol):
    """A policy that can be timed."""

    cameras: int
    image_size: int

    @property
    def module(self) -> torch.nn.Module:
        """Whose linear layers the kernels are chosen for."""
        ...

    def run(
        self, images: Sequence[UInt8Array], episode: EpisodeState, settings: PruningSettings
    ) -> SpeedStep:
        """Turn camera images [H, W, 3] into actions."""
        ...

    def outside_macs(self, images: Sequence[UInt8Array]) -> int:
        """Count the multiply-accumulates of everything but the decoder."""
        ...


def openvla_sizes(layers: int) -> NetworkSizes:
    """Sizes of OpenVLA-7B with another number of decoder layers (32 is the real one)."""
    return NetworkSizes(
        towers=(
            TowerSizes(
                kind='dinov2',
                prefix='vision_backbone.featurizer',
                width=1024,
                blocks=23,
                heads=16,
                mlp_width=4096,
                patch=14,
                grid=16,
                registers=4,
                layer_scale=True,
            ),
            TowerSizes(
                kind='siglip',
                prefix='vision_backbone.fused_featurizer',
                width=1152,
                blocks=26,
                heads=16,
                mlp_width=4304,
                patch=14,
                grid=16,
                registers=0,
                layer_scale=False,
            ),
        ),
        means=((0.485, 0.456, 0.406), (0.5, 0.5, 0.5)),
        stds=((0.229, 0.224, 0.225), (0.5, 0.5, 0.5)),
        projector=(2176, 8704, 4096, 4096),
        llama=LlamaConfig(vocab_size=32064, pad_token_id=32000, num_hidden_layers=layers),
    )


class OpenVlaSpeedModel:
    """OpenVLA-7B or OpenVLA-OFT-7B, through the classes that load real checkpoints."""

    image_size = 256

    def __init__(
        self,
        sizes: NetworkSizes,
        *,
        parallel: bool,
        prompt_tokens: int,
        device: torch.device,
        dtype: torch.dtype,
        seed: int,
    ) -> None:
        weights = RandomWeights(seed, dtype)
        width = sizes.llama.hidden_size
        network = build_network(sizes, with_lm_head=not parallel)
        weights.materialise(network, device, dtype)
        place_buffers(network, device)
        self._proprio = torch.linspace(-1, 1, PROPRIO_DIM) if parallel else None
        self._model: OftModel | AutoregressiveModel
        parts: list[torch.nn.Module] = [network]
        if parallel:
            with torch.device('meta'):
                head = L1ActionHead(width, width, ACTION_DIM, HEAD_BLOCKS)
                proprio = GeluProjector((PROPRIO_DIM, width, width))
            for part in (head, proprio):
                weights.materialise(part, device, dtype)
            self._model = OftModel(
                network, head, proprio, chunk_size=CHUNK_SIZE, action_dim=ACTION_DIM
            )
            parts += [head, proprio]
        else:
            self._model = AutoregressiveModel(
                network, action_dim=ACTION_DIM, token_bins=(sizes.llama.vocab_size - 64, 256)
            )
        self.module = torch.nn.ModuleList(parts).eval()
        self.cameras = 2 if parallel else 1
        self._network = network
        self._prompt_ids = [1, *range(3, 3 + prompt_tokens)]
        self._prepare = ImagePreparation(
            size=network.vision.image_size,
            mirror=True,
            jpeg_roundtrip=True,
            center_crop=True,
        )

    def run(
        self, images: Sequence[UInt8Array], episode: EpisodeState, settings: PruningSettings
    ) -> SpeedStep:
        """Prepare, encode, decode and read actions, as a policy does."""
        watch = StageTimer(torch.device('cpu'))
        with watch.stage('total'):
            with watch.stage('prepare'):
                pixels = self._pixels(images)
            prediction = self._model.predict(
                pixels,
                self._prompt_ids,
                self._proprio,
                episode=episode,
                pruning=settings,
                stamp_s=0.0,
            )
        output = prediction.output
        stages = {
            **watch.milliseconds(),
            **prediction.stopwatch.milliseconds(),
            **output.stage_ms,
        }
        macs = output.macs
        if 'generate' in stages:
            macs += _generated_macs(self._network.decoder.config, output)
        return SpeedStep(stages, output, macs)

    @torch.inference_mode()
    def outside_macs(self, images: Sequence[UInt8Array]) -> int:
        """Count vision towers, projector and head."""
        network = self._network
        macs = sum(network.encode_macs(len(images)).values())
        head = self._model.head if isinstance(self._model, OftModel) else None
        if head is not None:
            width = network.decoder.config.hidden_size
            states = torch.zeros(
                CHUNK_SIZE * ACTION_DIM, width, device=network.device, dtype=network.dtype
            )
            macs += _count_macs(lambda: head(states))
        return macs

    def _pixels(self, images: Sequence[UInt8Array]) -> torch.Tensor:
        prepared = np.stack([self._prepare(image) for image in images])
        return self._network.vision.normalize(torch.from_numpy(prepared))


class MiniSpeedModel:
    """The bundled policy's network."""

    cameras = 2
    image_size = 224

    def __init__(
        self, config: MiniConfig, *, device: torch.device, dtype: torch.dtype, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.module = self._model = MiniVla(config).eval().requires_grad_(requires_grad=False)
        self._model.to(device, dtype)
        use_tapping_attention(self._model.decoder)
        self._ids = torch.ones(1, config.instruction_length, dtype=torch.int64, device=device)
        self._proprio = torch.zeros(1, config.proprio_dim, device=device)
        self._device, self._dtype = device, dtype

    @torch.inference_mode()
    def run(
        self, images: Sequence[UInt8Array], episode: EpisodeState, settings: PruningSettings
    ) -> SpeedStep:
        """Prepare, encode, decode and read actions, as the policy does."""
        model, watch = self._model, StageTimer(self._device)
        whole = StageTimer(torch.device('cpu'))
        with whole.stage('total'):
            with watch.stage('prepare'):
                prepared = self._prepared(images)
            with watch.stage('vision'):
                visual = model.encode_images(prepared)
                embeddings = model.assemble(visual.to(self._dtype), self._proprio, self._ids)
            output = run_decoder(
                model.decoder,
                embeddings,
                layout=model.layout,
                episode=episode,
                settings=settings,
                stamp_s=0.0,
            )
            with watch.stage('head'):
                model.action_head(output.rows(model.action_slice)).float().cpu()
        stages = {**whole.milliseconds(), **watch.milliseconds(), **output.stage_ms}
        return SpeedStep(stages, output, output.macs)

    @torch.inference_mode()
    def outside_macs(self, images: Sequence[UInt8Array]) -> int:
        """Count the vision encoders."""
        prepared = self._prepared(images)
        return _count_macs(lambda: self._model.encode_images(prepared))

    def _prepared(self, images: Sequence[UInt8Array]) -> dict[str, torch.Tensor]:
        sizes = self._model.config.cameras
        return {
            name: torch.from_numpy(prepare_image(image, size))[None].to(self._device)
            for image, (name, size) in zip(images, sizes.items(), strict=True)
        }


def _count_macs(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return int(counter.get_total_flops()) // 2


def _generated_macs(config: LlamaConfig, output: DecoderOutput) -> int:
    """Count the passes of the tokens after the first, each over its layers' own cache."""
    return sum(
        pass_macs(
            ((1, keys + past + 1) for keys in output.layer_keys),
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
        )
        for past in range(ACTION_DIM - 1)
    )
