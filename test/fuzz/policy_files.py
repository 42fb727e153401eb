"""Every file of a policy directory, of every format, and the parameter file of a robot."""

from __future__ import annotations

import contextlib
import io
import pickle
import shutil
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from mutations import INTEGERS, change_bytes, change_json, change_safetensors, change_tree
from safetensors.torch import save_file

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.checkpoint import load_component
from safe_vla_ros.policies.checkpoint_tensors import load_tensor, read_header
from safe_vla_ros.policies.mini import make_tokenizer
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.policies.registry import load_policy, read_spec
from safe_vla_ros.runtime.parameter_file import read_parameter_file, read_remappings
from safe_vla_ros.runtime.parameters import check_values, resolve
from safe_vla_ros.types import MessageHeader, Observation, PruningSettings

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / 'test' / 'policies'))

from cogact_checkpoints import write_cogact  # noqa: E402  (beside the tests of policies)
from openvla_checkpoints import (  # noqa: E402  (beside the tests of policies)
    RandomCheckpoint,
    policy_settings,
    unpack_golden,
    write_json,
)
from pi_checkpoints import unpack_pi  # noqa: E402  (beside the tests of policies)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from safe_vla_ros.types import PolicySettings

LAYOUT = ('ee_position', 'ee_axis_angle', 'gripper_joints')
POLICY_YAML = """\
cameras: [front]
action_period_s: 0.05
execute_steps: 4
max_linear_speed: 0.2
proprio: {layout: [ee_position]}
action: {linear_scale_m: 0.05, angular_scale_rad: 0.5, rotation: axis_angle, frame: base}
gripper: {open_value: 1.0, closed_value: 0.0, joint_names: [left, right]}
image: {rotate_180: false, center_crop: true, jpeg_roundtrip: false}
pruning: {layer: 3, keep_ratio: 0.5, forecast_layers: [5]}
openvla: {vision_heads: [2, 3], normalization: bounds_q99}
"""


def mini(folder: Path) -> Callable[[Random], None]:
    """A small policy of the bundled kind."""
    path = folder / 'mini'
    path.mkdir()
    tokenizer = make_tokenizer(['push the button', 'open the drawer'])
    config = MiniConfig(
        cameras={'corner': 16, 'gripper': 8},
        patch_sizes={'corner': 8, 'gripper': 4},
        vocab_size=tokenizer.get_vocab_size(),
        instruction_length=4,
        chunk_size=4,
        action_dim=4,
        proprio_dim=3,
        proprio_mean=[0.0, 0.6, 0.2],
        proprio_std=[0.1, 0.1, 0.1],
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
    )
    write_json(path / 'config.json', {'model_type': 'mini_vla', **vars(config)})
    tokenizer.save(str(path / 'tokenizer.json'))
    save_file(MiniVla(config).state_dict(), path / 'model.safetensors')
    text = POLICY_YAML.replace('[front]', '[corner, gripper]')
    (path / 'policy.yaml').write_text(text.replace('openvla:', 'training:'))
    settings = policy_settings(cameras=('corner', 'gripper'), proprio_layout=('ee_position',))
    return _directory(path, folder / 'case', settings, proprio=3)


def openvla(folder: Path) -> Callable[[Random], None]:
    """A small OpenVLA checkpoint: one action as seven tokens."""
    checkpoint = RandomCheckpoint(width=16, layers=2, head=False, proprio_dim=None)
    path = checkpoint.write(folder / 'openvla')
    (path / 'policy.yaml').write_text(POLICY_YAML)
    return _directory(path, folder / 'case', policy_settings())


def openvla_oft(folder: Path) -> Callable[[Random], None]:
    """A small OpenVLA-OFT checkpoint in two shards, with head and projector."""
    checkpoint = RandomCheckpoint(width=16, layers=2, shards=2, dtype=torch.bfloat16)
    path = checkpoint.write(folder / 'oft')
    (path / 'policy.yaml').write_text(POLICY_YAML)
    return _directory(path, folder / 'case', policy_settings(proprio_layout=LAYOUT), proprio=8)


def cogact(folder: Path) -> Callable[[Random], None]:
    """A small CogACT checkpoint: tensors in one ``.pt`` file of groups."""
    path = write_cogact(folder / 'cogact', text='  cfg_scale: 1.5\n  ddim_steps: 2\n')
    return _directory(path, folder / 'case', policy_settings())


def golden(folder: Path) -> Callable[[Random], None]:
    """The committed OpenVLA-OFT checkpoint."""
    path = folder / 'golden'
    path.mkdir()
    unpack_golden('set1', path)
    settings = policy_settings(cameras=('front', 'wrist'), proprio_layout=LAYOUT)
    return _directory(path, folder / 'case', settings, proprio=8)


def pi05(folder: Path) -> Callable[[Random], None]:
    """The committed pi0.5 checkpoint in LeRobot's format."""
    path = unpack_pi('pi05/set1', folder / 'pi05')
    settings = policy_settings(cameras=('image', 'image2'), proprio_layout=LAYOUT)
    return _directory(path, folder / 'case', settings, proprio=8)


def _directory(
    whole: Path, path: Path, settings: PolicySettings, proprio: int = 0
) -> Callable[[Random], None]:
    files = [file for file in whole.rglob('*') if file.is_file()]
    names = sorted(file.relative_to(whole).as_posix() for file in files)
    image = np.zeros((20, 20, 3), np.uint8)
    observation = Observation(
        images=dict.fromkeys(settings.cameras, image),
        instruction='open the drawer',
        proprio=np.zeros(proprio) if proprio else None,
        image_headers=dict.fromkeys(settings.cameras, MessageHeader.at(1.0)),
    )

    def case(random: Random) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        chosen = random.choice(names)
        for name in names:
            (path / name).parent.mkdir(exist_ok=True)
            if name != chosen:
                (path / name).hardlink_to(whole / name)
        if random.randrange(40):
            content = change_file(random, whole / chosen)
            (path / chosen).write_bytes(content)
        spec = read_spec(str(path))
        given = {'cameras': list(settings.cameras), 'device': 'cpu', 'policy': str(path)}
        with contextlib.suppress(SafeVlaError):
            resolve(given, spec)
        policy = load_policy(str(path), settings)
        if random.randrange(4) == 0:
            policy.infer(observation, policy.new_episode(), PruningSettings(method='none'))

    return case


def change_file(random: Random, path: Path) -> bytes:
    """Return a changed file's content; its name says how."""
    content = path.read_bytes()
    if path.suffix == '.json':
        return change_json(random, content)
    if path.suffix == '.yaml':
        return change_yaml(random, content)
    if path.suffix == '.safetensors':
        return change_safetensors(random, content)
    if path.suffix == '.pt':
        return change_component(random, content)
    return change_bytes(random, content)


def change_yaml(random: Random, content: bytes) -> bytes:
    """Change a YAML file as a tree, or as bytes."""
    if random.randrange(3) == 0:
        return change_bytes(random, content)
    try:
        return yaml.safe_dump(change_tree(random, yaml.safe_load(content))).encode()
    except (RecursionError, UnicodeError):
        return b'a: &a [x]\nb: *a\n'


def change_component(random: Random, content: bytes) -> bytes:
    """Change a ``.pt`` file: its bytes, its table of tensors, or how its parts are packed."""
    kind = random.randrange(6)
    if kind == 0:
        return change_bytes(random, content)
    if kind == 1:
        return _saved(random)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    name = random.choice(sorted(parts))
    table = next(key for key in parts if key.endswith('data.pkl'))
    if kind in (2, 3):
        parts[table] = change_bytes(random, parts[table])
    elif kind == 4:
        parts[name] = bytes(random.choice((0, 1, 5_000_000)))
    else:
        del parts[name]
    packing = zipfile.ZIP_STORED if random.randrange(3) else zipfile.ZIP_DEFLATED
    target = io.BytesIO()
    with zipfile.ZipFile(target, 'w', packing) as archive:
        for key, part in parts.items():
            archive.writestr(key, part)
    return target.getvalue()


def _saved(random: Random) -> bytes:
    """Save things that are no heads, or that stand for more than they hold."""
    side = random.choice((1, 1000, 100_000, 10_000_000))
    things: tuple[Any, ...] = (
        {'fc1.weight': torch.zeros(1).expand(side, side)},
        {'model.fc1.weight': torch.zeros(1).expand(side), 'model.fc2.weight': torch.zeros(2, 3)},
        {'a': torch.zeros(3).to_sparse()},
        {'a': torch.zeros(2, device='meta')},
        {'a': torch.zeros(3, requires_grad=True)},
        {1: torch.zeros(1)},
        [torch.zeros(1)],
        OrderedDict(a=torch.nn.Parameter(torch.zeros(2))),
        {'a': bytearray(5)},
        {'a': random.choice(INTEGERS)},
        torch.zeros(3),
        {},
        {'a': torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)},
    )
    target = io.BytesIO()
    thing = random.choice(things)
    if random.randrange(5) == 0:
        return pickle.dumps({'a': 1})
    zipped = bool(random.randrange(4))
    torch.save(thing, target, _use_new_zipfile_serialization=zipped)
    return target.getvalue()


def component(folder: Path) -> Callable[[Random], None]:
    """Heads and projectors in ``.pt`` files."""
    path = RandomCheckpoint(width=16, layers=2).write(folder / 'whole')
    whole = [file.read_bytes() for file in sorted(path.glob('*.pt'))]
    target = folder / 'case.pt'

    def case(random: Random) -> None:
        target.write_bytes(change_component(random, random.choice(whole)))
        load_component(target, shapes_only=bool(random.randrange(2)))

    return case


def safetensors(folder: Path) -> Callable[[Random], None]:
    """Headers of weights."""
    tensors = {f'layer.{i}.weight': torch.zeros(3, i) for i in range(5)}
    save_file({**tensors, 'scalar': torch.tensor(1.0)}, folder / 'whole.safetensors')
    whole = (folder / 'whole.safetensors').read_bytes()
    path = folder / 'case.safetensors'

    def case(random: Random) -> None:
        path.write_bytes(change_safetensors(random, whole))
        for stored in read_header(path).values():
            load_tensor(stored)

    return case


def robot_yaml(folder: Path) -> Callable[[Random], None]:
    """Parameter files of robots."""
    whole = [file.read_bytes() for file in sorted((ROOT / 'config').glob('*.yaml'))]
    whole.append(b'/**:\n  ros__parameters: {a: 1}\nremappings:\n  ros__parameters: {a/b: /c}\n')
    path = folder / 'robot.yaml'

    def case(random: Random) -> None:
        path.write_bytes(change_yaml(random, random.choice(whole)))
        with contextlib.suppress(SafeVlaError):
            read_remappings(path)
        check_values(read_parameter_file(path))

    return case
