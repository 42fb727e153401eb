"""LeRobot's directories of pi0 and pi0.5: config.json, processors and their state files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safe_vla_ros.errors import CheckpointError, shortened
from safe_vla_ros.policies.checkpoint import Checkpoint
from safe_vla_ros.policies.checkpoint_tensors import load_tensor, read_header
from safe_vla_ros.policies.pi_facts import PiFacts
from safe_vla_ros.policies.pi_options import LONGEST_PROMPT, MOST_STEPS
from safe_vla_ros.policies.pi_statistics import IDENTITY, Affine, Vector, lerobot_affine
from safe_vla_ros.policies.spec import LARGEST_CHUNK, check_integer, check_numbers, read_json

PREPROCESSOR_FILE = 'policy_preprocessor.json'
POSTPROCESSOR_FILE = 'policy_postprocessor.json'
STATE, ACTION = 'observation.state', 'action'
_IMAGES = 'observation.images.'
_EMPTY = 'empty_camera_'
_MOST_NUMBERS = 1024
_LARGEST_STATE_FILE = 2**24
_DEFAULTS = {
    'chunk_size': 50,
    'max_state_dim': 32,
    'max_action_dim': 32,
    'num_inference_steps': 10,
}
"""What LeRobot takes where a config.json, written by an older version, does not say it."""

_NORMALIZER, _UNNORMALIZER = 'normalizer_processor', 'unnormalizer_processor'
_TOKENIZER = 'tokenizer_processor'
_PROMPT = {
    'pi0': ('pi0_new_line_processor', _TOKENIZER),
    'pi05': (_NORMALIZER, 'pi05_prepare_state_tokenizer_processor_step', _TOKENIZER),
}
"""Steps that make the prompt, in this order; pi0's does not hold the normalised state."""

_PASSED_OVER = (
    'rename_observations_processor',
    'to_batch_processor',
    'device_processor',
)
"""Steps that change nothing here: cameras are named by the node, and there is one observation."""

_ONLY_DISABLED = ('relative_actions_processor', 'absolute_actions_processor')


def read_facts(checkpoint: Checkpoint) -> PiFacts:
    """Read what a LeRobot directory says.

    Args:
        checkpoint: The opened directory.

    Raises:
        CheckpointError: Something is missing, wrong or not supported; the message names it.
    """
    path, config = checkpoint.path, checkpoint.config
    where = path / 'config.json'
    kind = str(checkpoint.setting('type'))
    if config.get('use_peft'):
        msg = f'{where}: use_peft is set; merge the adapter into the weights first'
        raise CheckpointError(msg)
    for name in (PREPROCESSOR_FILE, POSTPROCESSOR_FILE):
        if not (path / name).exists():
            msg = (
                f'{path / name} is missing; checkpoints of LeRobot before 0.4 have none: bring '
                'this one to a newer version with its migration script'
            )
            raise CheckpointError(msg)
    before = _read_steps(path / PREPROCESSOR_FILE)
    after = _read_steps(path / POSTPROCESSOR_FILE)
    _check_steps(before, {_NORMALIZER, *_PROMPT[kind]}, path / PREPROCESSOR_FILE)
    _check_steps(after, {_UNNORMALIZER}, path / POSTPROCESSOR_FILE)
    order = [name for name in before if name in _PROMPT[kind]]
    if order != list(_PROMPT[kind]):
        expected = ', '.join(_PROMPT[kind])
        msg = f'{path / PREPROCESSOR_FILE} has {", ".join(order)} in this order; it is {expected}'
        raise CheckpointError(msg)
    state_count = _feature_size(checkpoint, 'input_features', STATE)
    action_count = _feature_size(checkpoint, 'output_features', ACTION)

    def integer(key: str, lowest: int, highest: int) -> int:
        value = config.get(key, _DEFAULTS.get(key))
        return check_integer(value, lowest, highest, f'{where}: {key}')

    chunk_size = integer('chunk_size', 1, LARGEST_CHUNK)
    played = None
    if config.get('n_action_steps') is not None:
        played = integer('n_action_steps', 1, chunk_size)
    action_width = integer('max_action_dim', action_count, _MOST_NUMBERS)
    sides = config.get('image_resolution', [224, 224])
    if not isinstance(sides, list) or len(sides) != 2 or sides[0] != sides[1]:
        msg = f'{where}: image_resolution is {shortened(repr(sides))}, allowed is a square'
        raise CheckpointError(msg)
    low, high = check_numbers(
        [config.get('min_period', 4e-3), config.get('max_period', 4.0)], 2, f'{where}: min_period'
    )
    if not 1e-9 < low < high:
        msg = f'{where}: min_period is {low:g} and max_period {high:g}; allowed is 0 < min < max'
        raise CheckpointError(msg)
    return PiFacts(
        kind=kind,
        state=_read_affine(path, before[_NORMALIZER], STATE, 'STATE', state_count),
        actions=_read_affine(path, after[_UNNORMALIZER], ACTION, 'ACTION', action_count),
        state_width=integer('max_state_dim', 1 if kind == 'pi05' else state_count, _MOST_NUMBERS),
        action_width=action_width,
        chunk_size=chunk_size,
        execute_steps=played,
        num_steps=integer('num_inference_steps', 1, MOST_STEPS),
        prompt_length=_prompt_length(before[_TOKENIZER], path / PREPROCESSOR_FILE),
        camera_slots=_camera_slots(checkpoint),
        image_size=check_integer(sides[0], 1, 4096, f'{where}: image_resolution'),
        action_names=_action_names(checkpoint),
        periods=(low, high),
    )


def _read_steps(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return the steps of a processor by name; the names are unique."""
    steps = read_json(path).get('steps')
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        msg = f'{path} has no list of steps'
        raise CheckpointError(msg)
    by_name: dict[str, Mapping[str, Any]] = {}
    for step in steps:
        name = step.get('registry_name') or step.get('class')
        if not isinstance(name, str) or name in by_name or not isinstance(step.get('config'), dict):
            msg = f'{path} has a step {shortened(repr(name))} twice, or without name or config'
            raise CheckpointError(msg)
        by_name[name] = step
    return by_name


def _check_steps(steps: Mapping[str, Mapping[str, Any]], wanted: set[str], path: Path) -> None:
    known = [*sorted(wanted), *_PASSED_OVER, *_ONLY_DISABLED]
    for name, step in steps.items():
        if name not in known:
            msg = f'{path} has the step {shortened(name)!r}; known are {", ".join(known)}'
            raise CheckpointError(msg)
        if name in _ONLY_DISABLED and step['config'].get('enabled'):
            msg = f'{path}: the step {name} is enabled, which is not supported'
            raise CheckpointError(msg)
    for name in sorted(wanted - steps.keys()):
        msg = f'{path} lacks the step {name}'
        raise CheckpointError(msg)


def _prompt_length(step: Mapping[str, Any], path: Path) -> int:
    config = step['config']
    where = f'{path}: {_TOKENIZER}'
    for key, only in (('padding_side', 'right'), ('truncation', True)):
        if config.get(key, only) != only:
            msg = f'{where}: {key} is {config[key]!r}, allowed is {str(only).lower()}'
            raise CheckpointError(msg)
    return check_integer(config.get('max_length'), 1, LONGEST_PROMPT, f'{where}: max_length')


def _feature_size(checkpoint: Checkpoint, group: str, name: str) -> int:
    where = f'{checkpoint.path / "config.json"}: {group}'
    features = checkpoint.setting(group)
    feature = features.get(name) if isinstance(features, dict) else None
    shape = feature.get('shape') if isinstance(feature, dict) else None
    if not isinstance(shape, list) or len(shape) != 1:
        msg = f'{where} has no {name} with a shape of one number'
        raise CheckpointError(msg)
    return check_integer(shape[0], 1, _MOST_NUMBERS, f'{where}: {name}')


def _action_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    names = checkpoint.config.get('action_feature_names') or []
    if not isinstance(names, list):
        where = checkpoint.path / 'config.json'
        msg = f'{where}: action_feature_names is {shortened(repr(names))}, allowed is a list'
        raise CheckpointError(msg)
    return tuple(map(str, names))


def _camera_slots(checkpoint: Checkpoint) -> tuple[str, ...]:
    names = [
        key.removeprefix(_IMAGES)
        for key in checkpoint.setting('input_features')
        if key.startswith(_IMAGES) and not key.startswith(f'{_IMAGES}{_EMPTY}')
    ]
    if not names:
        msg = f'{checkpoint.path / "config.json"}: input_features has no {_IMAGES}<camera>'
        raise CheckpointError(msg)
    return tuple(names)


def _read_affine(
    path: Path, step: Mapping[str, Any], feature: str, kind: str, count: int
) -> Affine:
    """Read how a processor's step normalises one feature."""
    config, name = step['config'], step.get('state_file')
    norms = config.get('norm_map')
    if not isinstance(norms, dict) or kind not in norms:
        msg = f'{path}: a processor has no norm_map with {kind}'
        raise CheckpointError(msg)
    if norms.get('VISUAL', IDENTITY) != IDENTITY:
        msg = f'{path}: norm_map of VISUAL is {norms["VISUAL"]!r}, allowed is {IDENTITY}'
        raise CheckpointError(msg)
    epsilon = check_numbers([config.get('eps', 1e-8)], 1, f'{path}: eps of a processor')[0]
    statistics: dict[str, Vector] = {}
    where = str(path)
    if name is not None:
        if not isinstance(name, str) or Path(name).name != name:
            msg = f'{path}: state_file is {name!r}, allowed is a file name in the directory'
            raise CheckpointError(msg)
        where = str(path / name)
        start = f'{feature}.'
        for key, stored in read_header(path / name).items():
            if key.startswith(start):
                if stored.nbytes > _LARGEST_STATE_FILE:
                    msg = f'{where}: {key} has shape {list(stored.shape)}'
                    raise CheckpointError(msg)
                statistics[key.removeprefix(start)] = load_tensor(stored).float().numpy()
    return lerobot_affine(str(norms[kind]), statistics, count, epsilon, f'{where}: {feature}')
