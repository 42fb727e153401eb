"""Find a policy's directory and read what it says about itself, without loading weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_vla_ros import bounded_files
from safe_vla_ros.errors import CheckpointError, shortened
from safe_vla_ros.resources import find_share
from safe_vla_ros.successors import successor_note

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from safe_vla_ros.types import PolicySpec

POLICY_FILE = 'policy.yaml'
LARGEST_CHUNK = 1000
"""Actions per chunk; policies have up to a hundred."""

_HUB_REFERENCE = re.compile(r'^hf:(?P<repository>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})$')
_HUB_PATTERNS = ('*.json', '*.safetensors', '*_checkpoint.pt', 'tokenizer.model', POLICY_FILE)

_LIMITS = ('max_linear_speed', 'max_angular_speed', 'max_linear_accel', 'max_angular_accel')
_TOP = ('cameras', 'action_period_s', 'execute_steps')
_GROUPS: dict[str, dict[str, str]] = {
    'proprio': {'layout': 'proprio_layout'},
    'action': {
        'linear_scale_m': 'linear_scale_m',
        'angular_scale_rad': 'angular_scale_rad',
        'rotation': 'rotation',
        'frame': 'frame',
    },
    'gripper': {
        'open_value': 'gripper_open_value',
        'closed_value': 'gripper_closed_value',
        'joint_names': 'gripper_joint_names',
    },
    'image': {
        'rotate_180': 'rotate_180',
        'mirror': 'mirror',
        'center_crop': 'center_crop',
        'jpeg_roundtrip': 'jpeg_roundtrip',
    },
}
_SEQUENCES = {'cameras', 'proprio_layout', 'gripper_joint_names'}
_OTHER_GROUPS = ('pruning', 'training', 'openvla', 'cogact', 'pi')


def find_policy(reference: str) -> Path:
    """Return the directory that a reference names.

    Args:
        reference: A directory, the name of a bundled policy, or ``hf:org/name@<40-hex commit>``;
            only the last downloads anything, and only data files.

    Returns:
        A directory that exists.

    Raises:
        CheckpointError: It names nothing, or a bundled policy that has gone; the message lists
            what was tried, or names the successor.
    """
    if reference.startswith('hf:'):
        return download(reference)
    gone = successor_note(reference)
    if gone:
        raise CheckpointError(gone)
    try:
        directory = Path(reference).expanduser()
        if directory.is_dir():
            return directory
    except (OSError, RuntimeError) as error:
        msg = f'policy {shortened(reference)!r} cannot be looked for: {error}'
        raise CheckpointError(msg) from error
    tried = [directory]
    if re.fullmatch(r'[\w-]+', reference):
        tried.append(find_share('models') / reference)
        if tried[-1].is_dir():
            return tried[-1]
    places = ', '.join(str(path) for path in tried)
    msg = (
        f'policy {reference!r} is neither a directory, a bundled policy nor '
        f'hf:org/name@<40-hex commit>; looked at {places}'
    )
    raise CheckpointError(msg)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        CheckpointError: Missing, unreadable, not JSON or not an object.
    """
    content = bounded_files.read_json(path, CheckpointError)
    if not isinstance(content, dict):
        msg = f'{path} must hold a JSON object, got {type(content).__name__}'
        raise CheckpointError(msg)
    return content


def read_config(directory: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
        CheckpointError: Missing, not JSON, or not an object.
    """
    path = directory / 'config.json'
    if not path.exists():
        msg = f'{path} is missing: {directory} is not a policy directory'
        raise CheckpointError(msg)
    return read_json(path)


def check_integer(value: object, lowest: int, highest: int, where: str) -> int:
    """Return a value that is a whole number in a range.

    Raises:
        CheckpointError: It is not; the sentence begins with ``where``.
    """
    if type(value) is not int or not lowest <= value <= highest:
        got = shortened(repr(value))
        msg = f'{where} is {got}, allowed is a whole number from {lowest} to {highest}'
        raise CheckpointError(msg)
    return value


def check_numbers(value: object, count: int, where: str) -> list[float]:
    """Return a list of so many finite numbers.

    Raises:
        CheckpointError: It is something else; the sentence begins with ``where``.
    """
    right = isinstance(value, list) and len(value) == count
    if right and all(type(n) in (int, float) and abs(n) < 1e300 for n in value):  # type: ignore[attr-defined]
        return [float(n) for n in value]  # type: ignore[attr-defined]
    msg = f'{where} is {shortened(repr(value))}, allowed are {count} finite numbers'
    raise CheckpointError(msg)


def apply_policy_file(spec: PolicySpec, directory: Path) -> PolicySpec:
    """Return the spec with the values of the directory's ``policy.yaml``, if it has one.

    Raises:
        CheckpointError: The file is not YAML, or holds a key that is not known.
    """
    path = directory / POLICY_FILE
    if not path.exists():
        return spec
    content = _read_yaml(path)
    changes: dict[str, Any] = {}
    limits: dict[str, float] = {}
    for key, value in content.items():
        if key in _TOP:
            changes[key] = value
        elif key in _LIMITS:
            limits[key] = check_numbers([value], 1, f'{path}: {key}')[0]
        elif key in _GROUPS:
            changes.update(_read_group(path, key, value))
        elif key == 'pruning':
            changes['pruning'] = _mapping(path, key, value)
        elif key not in _OTHER_GROUPS:
            known = ', '.join([*_TOP, *_LIMITS, *_GROUPS, *_OTHER_GROUPS])
            msg = f'{path}: unknown key {key!r}; known keys: {known}'
            raise CheckpointError(msg)
    for name in _SEQUENCES & changes.keys():
        if not isinstance(changes[name], list):
            msg = f'{path}: {name} must be a list, got {changes[name]!r}'
            raise CheckpointError(msg)
        changes[name] = tuple(str(item) for item in changes[name])
    return replace(spec, **changes, limits={**spec.limits, **limits})


def read_policy_group(directory: Path, group: str, known: Collection[str]) -> Mapping[str, Any]:
    """Return one group of the directory's ``policy.yaml``; empty where there is none.

    Raises:
        CheckpointError: The file is not YAML, or the group is not a mapping of known keys.
    """
    path = directory / POLICY_FILE
    if not path.exists():
        return {}
    content = _mapping(path, group, _read_yaml(path).get(group, {}))
    for key in content.keys() - set(known):
        msg = f'{path}: unknown key {group}.{key}; known keys: {", ".join(known)}'
        raise CheckpointError(msg)
    return content


def _read_yaml(path: Path) -> dict[str, Any]:
    content = bounded_files.read_yaml(path, CheckpointError) or {}
    if not isinstance(content, dict):
        msg = f'{path} must hold a mapping, got {type(content).__name__}'
        raise CheckpointError(msg)
    return content


def _read_group(path: Path, key: str, value: object) -> Iterator[tuple[str, Any]]:
    for name, entry in _mapping(path, key, value).items():
        if name not in _GROUPS[key]:
            msg = f'{path}: unknown key {key}.{name}; known: {", ".join(_GROUPS[key])}'
            raise CheckpointError(msg)
        yield _GROUPS[key][name], entry


def _mapping(path: Path, key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        msg = f'{path}: {key} must be a mapping, got {type(value).__name__}'
        raise CheckpointError(msg)
    return value


def download(reference: str, patterns: Sequence[str] = _HUB_PATTERNS) -> Path:
    """Download files of one commit from a hub, or find them where they were downloaded.

    Args:
        reference: ``hf:org/name@<40-hex commit>``.
        patterns: Which files of the top directory.

    Returns:
        The directory that holds them.

    Raises:
        CheckpointError: The reference names no commit, or nothing can be downloaded.
    """
    match = _HUB_REFERENCE.match(reference)
    if match is None:
        msg = f'{reference!r} must be hf:org/name@<40-hex commit>: a branch or tag can change'
        raise CheckpointError(msg)
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  (only when asked for)
        from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415
    except ImportError as error:
        msg = f'{reference}: install huggingface_hub to download policies ({error})'
        raise CheckpointError(msg) from error
    try:
        path = snapshot_download(
            match['repository'],
            revision=match['revision'],
            allow_patterns=list(patterns),
            ignore_patterns='*/*',
        )
    except (OSError, HfHubHTTPError) as error:
        msg = f'{reference} cannot be downloaded: {error}'
        raise CheckpointError(msg) from error
    return Path(path)
