"""Checkpoint directories in OpenVLA's format for tests: golden ones and random ones."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from safe_vla_ros.bench.golden_set import unpack_checkpoint
from safe_vla_ros.types import PolicySettings

GOLDEN = Path(__file__).parents[1] / 'golden'
VOCABULARY = 32064
WORDS = 'in : what action should the robot take to pick up black bowl place it on plate ? out'


def write_tokenizer(directory):
    """Write a small tokenizer in the official file format: words, and <s> in front."""
    vocabulary = {'<unk>': 0, '<s>': 1, '</s>': 2}
    for word in WORDS.split():
        vocabulary.setdefault(word, len(vocabulary) + 300)
        vocabulary.setdefault(word.capitalize(), len(vocabulary) + 300)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<s> $A', special_tokens=[('<s>', 1)]
    )
    tokenizer.save(str(directory / 'tokenizer.json'))


def unpack_golden(name, directory):
    """Write a golden set's checkpoint and a small tokenizer into an existing directory.

    ``openvla_oft.load(directory, golden_settings(name))`` makes a policy of it.
    """
    unpack_checkpoint(GOLDEN / name, directory)
    write_tokenizer(directory)
    return directory


def golden_settings(name='set1', **changes):
    """Complete settings for a golden checkpoint, as a robot YAML would give them."""
    proprio = {
        'set1': ('ee_position', 'ee_axis_angle', 'gripper_joints'),
        'set2': (),
    }
    return policy_settings(
        **{
            'cameras': ('front', 'wrist'),
            'proprio_layout': proprio[name],
            'gripper_joint_names': ('left', 'right'),
            **changes,
        }
    )


def policy_settings(**changes):
    """Complete settings with physical units that leave the model's numbers as they are."""
    values = {
        'cameras': ('front',),
        'proprio_layout': (),
        'gripper_joint_names': (),
        'linear_scale_m': 1.0,
        'angular_scale_rad': 1.0,
        'rotation': 'axis_angle',
        'gripper_open_value': 1.0,
        'gripper_closed_value': 0.0,
        'rotate_180': False,
        'mirror': False,
        'center_crop': False,
        'jpeg_roundtrip': False,
        'device': 'cpu',
    }
    return PolicySettings(**{**values, **changes})


class _RandomTensors:
    def __init__(self, dtype, seed):
        self._dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)

    def tensor(self, *shape, scale=None):
        values = torch.randn(*shape, generator=self._generator)
        return (values * (scale or shape[-1] ** -0.5)).to(self._dtype)

    def affine(self, name, outputs, inputs):
        return {
            f'{name}.weight': self.tensor(outputs, inputs),
            f'{name}.bias': self.tensor(outputs),
        }

    def norm(self, name, width):
        return {f'{name}.weight': 1 + self.tensor(width), f'{name}.bias': self.tensor(width)}


@dataclass(frozen=True)
class RandomCheckpoint:
    """Sizes of a checkpoint with random weights."""

    action_dim: int = 7
    proprio_dim: int | None = 8
    head: bool = True
    shards: int = 1
    dtype: torch.dtype = torch.float32
    module_prefix: bool = True
    dataset: str = 'libero_spatial_no_noops'
    image_size: int = 28
    width: int = 32
    layers: int = 4
    text_config: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    quantiles: bool = True
    seed: int = 0

    def write(self, directory):
        """Write every file into a directory and return it."""
        directory.mkdir(parents=True, exist_ok=True)
        random = _RandomTensors(self.dtype, self.seed)
        affine, norm = random.affine, random.norm
        weights = {}
        for prefix, width, mlp in (('featurizer', 32, 128), ('fused_featurizer', 24, 61)):
            weights.update(self._tower(f'vision_backbone.{prefix}', width, mlp, random))
        for i, (outputs, inputs) in enumerate(
            [(64, 56), (self.width, 64), (self.width, self.width)]
        ):
            weights.update(affine(f'projector.fc{i + 1}', outputs, inputs))
        weights.update(self._llama(random.tensor))
        self._write_weights(directory, weights)
        prefix = 'module.' if self.module_prefix else ''
        if self.head:
            head = norm('model.layer_norm1', self.action_dim * self.width)
            head |= affine('model.fc1', 40, self.action_dim * self.width)
            for block in range(2):
                head |= norm(f'model.mlp_resnet_blocks.{block}.ffn.0', 40)
                head |= affine(f'model.mlp_resnet_blocks.{block}.ffn.1', 40, 40)
            head |= norm('model.layer_norm2', 40) | affine('model.fc2', self.action_dim, 40)
            path = directory / 'action_head--1000_checkpoint.pt'
            torch.save({prefix + key: value for key, value in head.items()}, path)
        if self.proprio_dim:
            projector = affine('fc1', self.width, self.proprio_dim)
            projector |= affine('fc2', self.width, self.width)
            path = directory / 'proprio_projector--1000_checkpoint.pt'
            torch.save({prefix + key: value for key, value in projector.items()}, path)
        self._write_configuration(directory)
        write_tokenizer(directory)
        return directory

    def _tower(self, prefix, width, mlp, random):
        tensor, affine, norm = random.tensor, random.affine, random.norm
        grid = self.image_size // 14
        weights = {
            f'{prefix}.pos_embed': tensor(1, grid**2, width),
            f'{prefix}.patch_embed.proj.weight': tensor(width, 3, 14, 14, scale=0.05),
            f'{prefix}.patch_embed.proj.bias': tensor(width),
            **norm(f'{prefix}.norm', width),
        }
        scaled = width == 32
        if scaled:
            weights[f'{prefix}.cls_token'] = tensor(1, 1, width)
            weights[f'{prefix}.reg_token'] = tensor(1, 4, width)
        for block in range(3):
            name = f'{prefix}.blocks.{block}'
            weights |= norm(f'{name}.norm1', width) | norm(f'{name}.norm2', width)
            weights |= affine(f'{name}.attn.qkv', 3 * width, width)
            weights |= affine(f'{name}.attn.proj', width, width)
            weights |= affine(f'{name}.mlp.fc1', mlp, width)
            weights |= affine(f'{name}.mlp.fc2', width, mlp)
            if scaled:
                weights[f'{name}.ls1.scale_factor'] = tensor(width)
                weights[f'{name}.ls2.scale_factor'] = tensor(width)
        return weights

    def _llama(self, tensor):
        width, start = self.width, 'language_model.model'
        weights = {
            f'{start}.embed_tokens.weight': tensor(VOCABULARY, width, scale=1.0),
            f'{start}.norm.weight': 1 + tensor(width),
            'language_model.lm_head.weight': tensor(VOCABULARY, width),
        }
        for layer in range(self.layers):
            name = f'{start}.layers.{layer}'
            for projection in 'qkvo':
                weights[f'{name}.self_attn.{projection}_proj.weight'] = tensor(width, width)
            for projection, shape in (
                ('gate', (80, width)),
                ('up', (80, width)),
                ('down', (width, 80)),
            ):
                weights[f'{name}.mlp.{projection}_proj.weight'] = tensor(*shape)
            for kind in ('input', 'post_attention'):
                weights[f'{name}.{kind}_layernorm.weight'] = 1 + tensor(width)
        return weights

    def _write_weights(self, directory, weights):
        if self.shards == 1:
            save_file(weights, directory / 'model.safetensors')
            return
        weight_map = {}
        names = sorted(weights)
        for shard in range(self.shards):
            name = f'model-{shard + 1:05d}-of-{self.shards:05d}.safetensors'
            part = names[shard :: self.shards]
            save_file({key: weights[key] for key in part}, directory / name)
            weight_map.update(dict.fromkeys(part, name))
        write_json(directory / 'model.safetensors.index.json', {'weight_map': weight_map})

    def _write_configuration(self, directory):
        text = {
            'model_type': 'llama',
            'hidden_size': self.width,
            'intermediate_size': 80,
            'num_hidden_layers': self.layers,
            'num_attention_heads': 4,
            'vocab_size': VOCABULARY,
            'pad_token_id': 32000,
        }
        config = {
            'model_type': 'openvla',
            'arch_specifier': 'no-align+fused-gelu-mlp',
            'image_resize_strategy': 'resize-naive',
            'timm_model_ids': [
                'vit_tiny_w32_d3_h2_patch14_reg4_dinov2',
                'vit_tiny_w24_d3_h3_patch14_siglip',
            ],
            'use_fused_vision_backbone': True,
            'pad_to_multiple_of': 64,
            'n_action_bins': 256,
            'norm_stats': {'decoy': {'action': {'q01': [0.0], 'q99': [1.0]}}},
            'text_config': {**text, **self.text_config},
        }
        write_json(directory / 'config.json', {**config, **self.config})
        size = [3, self.image_size, self.image_size]
        preprocessor = {
            'image_processor_type': 'PrismaticImageProcessor',
            'input_sizes': [size, size],
            'means': [[0.485, 0.456, 0.406], [0.5, 0.5, 0.5]],
            'stds': [[0.229, 0.224, 0.225], [0.5, 0.5, 0.5]],
        }
        write_json(directory / 'preprocessor_config.json', preprocessor)
        statistics = {'action': self._bounds(self.action_dim)}
        statistics['action']['mask'] = [True] * (self.action_dim - 1) + [self.action_dim == 14]
        statistics['proprio'] = self._bounds(self.proprio_dim or 8)
        write_json(directory / 'dataset_statistics.json', {self.dataset: statistics})

    def _bounds(self, count):
        bounds = {
            'min': [-1.0 - 0.1 * i for i in range(count)],
            'max': [1.0 + 0.2 * i for i in range(count)],
        }
        if self.quantiles:
            bounds['q01'] = [-0.5 - 0.1 * i for i in range(count)]
            bounds['q99'] = [0.5 + 0.2 * i for i in range(count)]
        return bounds


def write_json(path, content):
    """Write a JSON file."""
    path.write_text(json.dumps(content), encoding='utf-8')


def edit_json(path, **changes):
    """Change or, with None, remove keys of a JSON file."""
    content = json.loads(path.read_text(encoding='utf-8')) | changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.unlink()
    write_json(path, kept)


def golden_parameters(directory, name='set1', **changes):
    """Parameters of the node, by name, for a golden checkpoint in a directory."""
    settings = golden_settings(name)
    return {
        'policy': str(directory),
        'device': 'cpu',
        'dtype': 'float32',
        'cameras': list(settings.cameras),
        'proprio.layout': list(settings.proprio_layout),
        'gripper.joint_names': list(settings.gripper_joint_names),
        'gripper.open_value': 1.0,
        'gripper.closed_value': 0.0,
        'action.linear_scale_m': 0.05,
        'action.angular_scale_rad': 0.5,
        'action.rotation': 'axis_angle',
        'action.frame': 'base',
        'action_period_s': 0.05,
        'execute_steps': 4,
        'pruning.layer': 3 if name == 'set1' else 2,
        'pruning.forecast_layers': [5],
        **changes,
    }
