"""Vision towers: mapped keys, positions of prefix tokens, one tower or two."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from openvla_checkpoints import RandomCheckpoint, edit_json
from safetensors.torch import load_file, save_file

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import open_checkpoint
from safe_vla_ros.policies.openvla_config import read_sizes
from safe_vla_ros.policies.openvla_network import load_network
from safe_vla_ros.policies.vision_sizes import tower_heads, tower_kind

WHERE = Path('config.json')
SMALL = RandomCheckpoint(width=8, head=False, proprio_dim=None)
POSITIONS = 'vision_backbone.featurizer.pos_embed'


def load(path):
    checkpoint = open_checkpoint(path)
    return load_network(
        checkpoint,
        read_sizes(checkpoint),
        with_lm_head=False,
        device=torch.device('cpu'),
        dtype=torch.float32,
    )


def pixels(network, seed=0):
    images = np.random.default_rng(seed).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
    return network.vision.normalize(torch.from_numpy(images))


def edit_weights(path, change):
    tensors = load_file(path / 'model.safetensors')
    change(tensors)
    save_file(tensors, path / 'model.safetensors')


def test_features_are_those_of_the_second_to_last_block(tmp_path):
    path = SMALL.write(tmp_path)
    features = load(path).vision(pixels(load(path)))

    def spoil_the_rest(tensors):
        for key in tensors:
            if '.blocks.2.' in key or key.endswith(
                ('featurizer.norm.weight', 'featurizer.norm.bias')
            ):
                tensors[key] = torch.full_like(tensors[key], torch.nan)

    edit_weights(path, spoil_the_rest)
    assert torch.equal(load(path).vision(pixels(load(path))), features)


def test_cameras_do_not_see_one_another(tmp_path):
    network = load(SMALL.write(tmp_path))
    both = pixels(network)
    torch.testing.assert_close(network.vision(both)[1:], network.vision(both[1:]))


def test_positions_of_prefix_tokens_are_added_where_a_checkpoint_has_them(tmp_path):
    """Positions stored for class and register tokens equal tokens that already hold them."""
    folded = SMALL.write(tmp_path / 'folded')
    stored = SMALL.write(tmp_path / 'stored')
    prefix = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(3))

    def fold(tensors):
        start = 'vision_backbone.featurizer.'
        tensors[f'{start}cls_token'] += prefix[:, :1]
        tensors[f'{start}reg_token'] += prefix[:, 1:]

    def store(tensors):
        tensors[POSITIONS] = torch.cat([prefix, tensors[POSITIONS]], dim=1)

    edit_weights(folded, fold)
    edit_weights(stored, store)
    a, b = load(folded), load(stored)
    torch.testing.assert_close(a.vision(pixels(a)), b.vision(pixels(b)))


def test_a_checkpoint_with_one_tower_and_two_projector_layers_loads(tmp_path):
    path = SMALL.write(tmp_path)

    def keep_siglip(tensors):
        start = 'vision_backbone.featurizer.'
        for key in [key for key in tensors if key.startswith(start)]:
            del tensors[key]
        for key in [key for key in tensors if key.startswith('vision_backbone.fused_')]:
            tensors[key.replace('fused_featurizer', 'featurizer')] = tensors.pop(key)
        tensors['projector.fc1.weight'] = tensors['projector.fc1.weight'][:, :24].contiguous()
        del tensors['projector.fc3.weight'], tensors['projector.fc3.bias']

    edit_weights(path, keep_siglip)
    edit_json(
        path / 'config.json',
        use_fused_vision_backbone=False,
        timm_model_ids=['vit_tiny_w24_d3_h3_patch14_siglip'],
    )
    preprocessor = json.loads((path / 'preprocessor_config.json').read_text())
    one = {key: preprocessor[key][1:] for key in ('input_sizes', 'means', 'stds')}
    edit_json(path / 'preprocessor_config.json', **one)
    network = load(path)
    assert pixels(network).shape == (2, 3, 28, 28)
    assert network.encode(pixels(network)).shape == (8, 8)


def test_sizes_follow_the_weights(tmp_path):
    sizes = read_sizes(open_checkpoint(replace(SMALL, image_size=42).write(tmp_path)))
    dino, siglip = sizes.towers
    assert (dino.width, dino.blocks, dino.heads, dino.registers) == (32, 2, 2, 4)
    assert (siglip.width, siglip.mlp_width, siglip.heads) == (24, 61, 3)
    assert {tower.grid for tower in sizes.towers} == {3}
    assert sizes.projector == (56, 64, 8, 8)


def test_the_published_towers_have_sixteen_heads():
    ids = ['vit_large_patch14_reg4_dinov2.lvd142m', 'vit_so400m_patch14_siglip_224']
    assert tower_heads(ids, WHERE) == (16, 16)
    assert [tower_kind(name, WHERE) for name in ids] == ['dinov2', 'siglip']


@pytest.mark.parametrize('name', ['resnet50', 'vit_strange_patch14_siglip'])
def test_an_unknown_tower_must_be_described(name):
    with pytest.raises(CheckpointError, match=r'config\.json: .*vision_heads'):
        tower_heads([name], WHERE)
