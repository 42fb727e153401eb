"""An untrained policy directory of the bundled kind, for tests."""

from pathlib import Path

import torch

from safe_vla_ros.policies.mini import make_tokenizer
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.sim.tasks import TASKS
from safe_vla_ros.sim.train import export


def write_untrained_policy(out: Path, *, seed: int = 0) -> Path:
    """Write a policy directory with random weights; returns it."""
    torch.manual_seed(seed)
    vocab = make_tokenizer([task.sentence for task in TASKS.values()]).get_vocab_size()
    config = MiniConfig(
        cameras={'corner': 112, 'gripper': 56},
        vocab_size=vocab,
        instruction_length=10,
        chunk_size=8,
        action_dim=4,
        proprio_dim=5,
        proprio_mean=[0.0, 0.65, 0.17, 0.0, 0.0],
        proprio_std=[0.1, 0.1, 0.1, 0.02, 0.02],
    )
    model = MiniVla(config)
    export(model, model.state_dict(), out)
    return out
