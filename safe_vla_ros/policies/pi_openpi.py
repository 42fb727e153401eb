"""openpi's PyTorch directories of pi0 and pi0.5, with assets/<id>/norm_stats.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.normalization import choose_statistics
from safe_vla_ros.policies.pi_facts import PiFacts
from safe_vla_ros.policies.pi_statistics import Affine, openpi_affine
from safe_vla_ros.policies.spec import LARGEST_CHUNK, check_integer, read_json

_SLOTS = ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')
_PROMPT_LENGTH = {'pi0': 48, 'pi05': 200}
_NUM_STEPS = 10
_MOST_NUMBERS = 1024
STATISTICS_FILE = 'norm_stats.json'


def read_facts(checkpoint: Checkpoint, unnorm_key: str) -> PiFacts:
    """Read what an openpi directory says; which of the two models it is show its weights.

    Args:
        checkpoint: The opened directory.
        unnorm_key: Name of the statistics below ``assets``; may be empty where there is one.

    Raises:
        CheckpointError: Something is missing or wrong; the message names it.
    """
    path = checkpoint.path
    where = path / 'config.json'
    kind = 'pi0' if 'state_proj.weight' in checkpoint.tensors else 'pi05'
    width = check_integer(
        checkpoint.setting('action_dim'), 1, _MOST_NUMBERS, f'{where}: action_dim'
    )
    assets = {file.parent.name: file for file in sorted(path.glob(f'assets/*/{STATISTICS_FILE}'))}
    if not assets:
        msg = f'{path} has no assets/<data set>/{STATISTICS_FILE}'
        raise CheckpointError(msg)
    name, _ = choose_statistics(assets, unnorm_key, str(path))
    file = assets[name]
    content = read_json(file).get('norm_stats')
    if not isinstance(content, dict):
        msg = f'{file} has no norm_stats'
        raise CheckpointError(msg)
    return PiFacts(
        kind=kind,
        state=_affine(content, 'state', kind, width, str(file)),
        actions=_affine(content, 'actions', kind, width, str(file)),
        state_width=width,
        action_width=width,
        chunk_size=check_integer(
            checkpoint.setting('action_horizon'), 1, LARGEST_CHUNK, f'{where}: action_horizon'
        ),
        execute_steps=None,
        num_steps=_NUM_STEPS,
        prompt_length=_PROMPT_LENGTH[kind],
        camera_slots=_SLOTS,
        image_size=None,
        statistics=tuple(assets),
    )


def _affine(content: Mapping[str, Any], part: str, kind: str, widest: int, file: str) -> Affine:
    statistics = content.get(part)
    if not isinstance(statistics, dict):
        statistics = {}
    mean = statistics.get('mean')
    if not isinstance(mean, list) or not 1 <= len(mean) <= widest:
        msg = f'{file} has no norm_stats.{part} with 1 to {widest} numbers of mean'
        raise CheckpointError(msg)
    return openpi_affine(
        statistics, quantiles=kind == 'pi05', count=len(mean), where=f'{file}: {part}'
    )
