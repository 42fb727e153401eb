"""CogACT in the speed benchmark, at sizes that a test can afford."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import LlamaConfig

from safe_vla_ros.bench import speed
from safe_vla_ros.bench.speed_cogact import CogActSpeedModel, cogact_base_sizes
from safe_vla_ros.policies.cogact_config import CogActSizes
from safe_vla_ros.pruning import make_episode
from safe_vla_ros.types import PruningSettings

if TYPE_CHECKING:
    from pathlib import Path


def tiny_sizes(layers: int) -> CogActSizes:
    real = cogact_base_sizes(layers)
    towers = tuple(
        replace(tower, width=32, blocks=2, heads=2, mlp_width=48, grid=4)
        for tower in real.network.towers
    )
    llama = LlamaConfig(
        vocab_size=29_900,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_hidden_layers=layers,
    )
    network = replace(real.network, towers=towers, projector=(64, 96, 64, 64), llama=llama)
    head = replace(real.head, width=48, blocks=2, heads=4, mlp_width=96, condition_width=64)
    return CogActSizes(network, head)


def test_the_real_sizes_are_those_of_cogact_base() -> None:
    sizes = cogact_base_sizes(32)
    assert sizes.network.llama.rms_norm_eps == 1e-5
    assert (sizes.head.width, sizes.head.blocks, sizes.head.heads) == (768, 12, 12)
    assert (sizes.head.chunk_size, sizes.head.condition_width) == (16, 4096)


def test_a_pruned_step_costs_less_in_the_decoder_and_the_same_around_it() -> None:
    model = CogActSpeedModel(
        tiny_sizes(4), prompt_tokens=8, device=torch.device('cpu'), dtype=torch.float32, seed=0
    )
    images = next(speed._scene(model.cameras, model.image_size, 0))
    episode = make_episode()
    settings = PruningSettings(layer=2, refresh_threshold=-1.0)
    full = model.run(images, make_episode(), PruningSettings(method='none', layer=2))
    key, pruned = (model.run(images, episode, settings) for _ in range(2))
    assert key.output.key_step
    assert pruned.output.pruned
    # The beginning, the visual tokens, and the prompt with its two last ids.
    assert full.output.length == 1 + 16 + 8
    assert full.macs == key.macs > pruned.macs
    assert {'prepare', 'vision', 'projector', 'decode', 'head'} <= pruned.stage_ms.keys()
    macs = model.outside_macs(images)
    assert macs > 20 * tiny_sizes(4).head.macs


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_the_command_line_knows_the_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    monkeypatch.setattr(speed, 'cogact_base_sizes', tiny_sizes)
    line = '--shape cogact-base --layers 3 --layer 1 --steps 4 --key-every 4 --threads 1 --quiet'
    file = tmp_path / 'speed.json'
    assert speed.main([*line.split(), '--dtype', dtype, '--json', str(file)]) == 0
    summary = json.loads(file.read_text())
    assert summary['shape'] == 'cogact-base'
    assert summary['ceiling_by_macs']['decoder_pruned_step'] > 1
