"""CogACT directories for tests: the golden one with a smaller vocabulary, to be changed at will."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from openvla_checkpoints import GOLDEN, policy_settings

from safe_vla_ros.bench.golden_set import unpacked_parts
from safe_vla_ros.types import MessageHeader, Observation

if TYPE_CHECKING:
    from collections.abc import Callable

SET = GOLDEN / 'cogact' / 'set1'
ROWS = 29_900
"""Of the embedding: the highest id that a prompt has is 29871."""
HEADS = 'vision_heads: [2, 4]\n  llm_heads: 4\n  dit_heads: 4\n'
WEIGHTS = 'step-000001-epoch-00-loss=1.0000.pt'
UNNORM_KEY = 'bridge_orig'

Groups = dict[str, dict[str, Any]]


@lru_cache(maxsize=1)
def _stored() -> tuple[dict[str, bytes], Groups]:
    with unpacked_parts(SET) as parts:
        files = {
            name: (parts / folder / name).read_bytes()
            for folder, name in (
                ('checkpoint', 'config.json'),
                ('checkpoint', 'dataset_statistics.json'),
                ('tokenizer', 'tokenizer.json'),
            )
        }
        (weights,) = (parts / 'checkpoint' / 'checkpoints').glob('*.pt')
        groups: Groups = torch.load(weights, weights_only=True)['model']
    embedding = groups['llm_backbone']['llm.model.embed_tokens.weight']
    groups['llm_backbone']['llm.model.embed_tokens.weight'] = embedding[:ROWS].clone()
    del groups['llm_backbone']['llm.lm_head.weight']
    return files, groups


def write_cogact(
    directory: Path, change: Callable[[Groups], object] = lambda groups: None, text: str = ''
) -> Path:
    """Write the directory and return it.

    Args:
        directory: Made when missing.
        change: Changes the groups of tensors.
        text: More lines of the group ``cogact`` in policy.yaml, indented by two.
    """
    files, stored = _stored()
    groups = {group: dict(tensors) for group, tensors in stored.items()}
    change(groups)
    (directory / 'checkpoints').mkdir(parents=True, exist_ok=True)
    torch.save({'model': groups}, directory / 'checkpoints' / WEIGHTS)
    config = json.loads(files['config.json'])
    statistics = json.loads(files['dataset_statistics.json'])
    tokenizer = json.loads(files['tokenizer.json'])
    vocabulary = tokenizer['model']['vocab']
    # The rest fills the official size and is in no prompt.
    tokenizer['model']['vocab'] = {k: v for k, v in vocabulary.items() if not k.startswith('~')}
    tokenizer['added_tokens'] = [t for t in tokenizer['added_tokens'] if t['id'] < ROWS]
    for name, content in (
        ('config.json', config),
        ('dataset_statistics.json', {UNNORM_KEY: statistics[UNNORM_KEY]}),
        ('tokenizer.json', tokenizer),
    ):
        (directory / name).write_text(json.dumps(content), encoding='utf-8')
    (directory / 'policy.yaml').write_text(f'cogact:\n  {HEADS}{text}')
    return directory


def cogact_settings(**changes: Any) -> Any:
    """Complete settings that leave the model's numbers as they are."""
    return policy_settings(**{'unnorm_key': UNNORM_KEY, 'dtype': 'float32', **changes})


def inputs() -> dict[str, np.ndarray]:
    """Read the golden observations."""
    with np.load(SET / 'inputs.npz') as content:
        return dict(content)


def observation(step: int) -> Observation:
    """Return a golden observation."""
    content = inputs()
    header = MessageHeader.at(1.0 + step)
    image = content['image'][step]
    return Observation({'front': image}, str(content['tasks'][step]), None, {'front': header})
