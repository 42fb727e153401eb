"""An untrained policy directory of the bundled kind, for tests. No simulator is needed."""

from pathlib import Path

import torch
import yaml

from safe_vla_ros.policies.mini import make_tokenizer
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.sim.train import export

SENTENCES = (
    'pick up the black bowl next to the ramekin and place it on the plate',
    'pick up the black bowl from table center and place it on the plate',
)
BUNDLED_CAMERAS = ('agentview', 'wrist')
BUNDLED_JOINTS = ('panda_finger_joint1', 'panda_finger_joint2')


def write_untrained_policy(
    out: Path, *, seed: int = 0, cameras=BUNDLED_CAMERAS, joints=BUNDLED_JOINTS
) -> Path:
    """Write a policy directory with random weights, for a robot of any names; returns it."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(SENTENCES)
    config = MiniConfig(
        cameras=dict(zip(cameras, (112, 96), strict=True)),
        patch_sizes=dict(zip(cameras, (8, 12), strict=True)),
        vocab_size=tokenizer.get_vocab_size(),
        instruction_length=20,
        chunk_size=8,
        action_dim=4,
        proprio_dim=8,
        proprio_mean=[-0.06, 0.23, 1.03, 3.14, 0.0, -0.1, 0.02, -0.02],
        proprio_std=[0.1, 0.12, 0.07, 0.02, 0.003, 0.05, 0.02, 0.02],
    )
    model = MiniVla(config)
    export(model, model.state_dict(), tokenizer, out)
    file = out / 'policy.yaml'
    content = yaml.safe_load(file.read_text())
    content['cameras'] = list(cameras)
    content['gripper']['joint_names'] = list(joints)
    file.write_text(yaml.safe_dump(content))
    return out
