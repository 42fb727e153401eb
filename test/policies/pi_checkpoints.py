"""Checkpoint directories of pi0 and pi0.5 for tests: the golden ones, whole or spoilt."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from openvla_checkpoints import policy_settings
from safetensors.torch import load_file, save_file

from safe_vla_ros.bench.golden_set import unpacked_parts
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.pi import load_model, padded_state
from safe_vla_ros.policies.pi_directory import open_directory
from safe_vla_ros.policies.pi_images import fit_image
from safe_vla_ros.types import PruningSettings

GOLDEN = Path(__file__).parents[1] / 'golden'
SETS = ('pi05/set1', 'pi05/set2', 'pi0/set1')
HEADS = {'pi05/set1': 3, 'pi05/set2': 2, 'pi0/set1': 3}
PROPRIO = ('ee_position', 'ee_axis_angle', 'gripper_joints')


def unpack_pi(name, directory, part='checkpoint', **options):
    """Write a golden checkpoint with its tokenizer and a policy.yaml; return its directory."""
    with unpacked_parts(GOLDEN / name, (part, 'tokenizer')) as parts:
        target = directory / 'pi'
        for source in sorted((parts / part).rglob('*')):
            if source.is_file():
                place = target / source.relative_to(parts / part)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(source.read_bytes())
        content = (parts / 'tokenizer' / 'tokenizer.json').read_bytes()
        (target / 'tokenizer.json').write_bytes(content)
    write_options(target, vision_heads=HEADS[name], **options)
    return target


def write_options(directory, **options):
    """Write the group ``pi`` of a policy.yaml; JSON is YAML."""
    (directory / 'policy.yaml').write_text(json.dumps({'pi': options}))


def edit_tensors(path, change):
    """Change the tensors of a safetensors file by their names."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def read_inputs(name):
    with np.load(GOLDEN / name / 'inputs.npz') as content:
        return dict(content)


def pi_settings(**changes):
    """Complete settings for pi05/set1 and pi0/set1, as a robot YAML would give them."""
    values = {
        'cameras': ('image', 'image2'),
        'proprio_layout': PROPRIO,
        'gripper_joint_names': ('left', 'right'),
    }
    return policy_settings(**{**values, **changes})


class Loaded:
    """A golden checkpoint that is loaded once, with a way to run it on its own inputs."""

    def __init__(self, name, directory):
        self.directory = open_directory(directory)
        self.model = load_model(self.directory, device='cpu', dtype='float32')
        self.encoder = self.directory.encoder()
        self.inputs = read_inputs(name)

    @property
    def network(self):
        return self.model.network

    def state(self, step):
        return self.directory.facts.state.normalize(self.inputs['state'][step])

    def prompt_ids(self, step):
        return self.encoder.encode(str(self.inputs['tasks'][step]), self.state(step))

    def pixels(self, step, cameras=None):
        options = self.directory.options
        size = self.directory.sizes.vision.image_size
        names = [n for n in cameras or options.camera_slots if f'image_{n}' in self.inputs]
        images = [self.inputs[f'image_{name}'][step] for name in names]
        fitted = [
            fit_image(image, size, resize=options.image_resize, padding=options.image_padding)
            for image in images
        ]
        return torch.stack(fitted)

    def state_vector(self, step):
        facts = self.directory.facts
        return padded_state(self.state(step), facts.state_width) if facts.kind == 'pi0' else None

    def episode(self, step=0):
        """Return an empty memory with the set's noise of one step."""
        return NoisyEpisode(0, draw=torch.from_numpy(self.inputs['noise'][step]).view)

    def predict(self, step=0, *, episode=None, cameras=None, pruner=None, stamp_s=0.0, **pruning):
        settings = {'method': 'none', 'layer': 2, **pruning}
        return self.model.predict(
            self.pixels(step, cameras),
            self.prompt_ids(step),
            self.state_vector(step),
            episode=episode or self.episode(step),
            pruning=PruningSettings(**settings),
            stamp_s=stamp_s,
            pruner=pruner,
        )


@cache
def load_pi(name, root):
    return Loaded(name, unpack_pi(name, root))
