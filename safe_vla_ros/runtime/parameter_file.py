"""Read a robot's ROS 2 parameter file without ROS: the node's values, and its remappings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from safe_vla_ros.bounded_files import read_yaml
from safe_vla_ros.errors import ParameterError
from safe_vla_ros.successors import successor_note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SECTION = 'ros__parameters'
REMAPPINGS = 'remappings'
"""Section beside the nodes' that says which topic stands for which input."""


def read_parameter_file(path: Path, node: str = '/pruned_policy') -> dict[str, Any]:
    """Read the values that a parameter file gives to one node.

    Args:
        path: YAML as for ``--params-file``: node names or wildcards (``/**``, ``/*/name``) over
            ``ros__parameters``; later sections win.
        node: Fully qualified name of the node.

    Returns:
        Values by parameter name with dots; empty when no section matches.

    Raises:
        ParameterError: The file cannot be read, is not YAML, or holds no ``ros__parameters``.
    """
    sections = list(_sections(_content(path), ''))
    if not sections:
        msg = f'parameter file {path} holds no {SECTION}; it must look like /**: {SECTION}: ...'
        raise ParameterError(msg)
    values: dict[str, Any] = {}
    for pattern, section in sections:
        if not isinstance(section, dict):
            msg = f'{path}: {SECTION} must map names to values, got {section!r}'
            raise ParameterError(msg)
        if _matches(pattern, node):
            values.update(_flatten(section, ''))
    return values


def read_remappings(path: Path) -> dict[str, str]:
    """Read the remappings of a robot's parameter file, for the launch file and for replay.

    They stand in a section that ROS takes for a node of that name and leaves alone::

        remappings:
          ros__parameters:
            agentview/image_raw: /front_camera/color/image_raw

    Args:
        path: YAML as for ``read_parameter_file``.

    Returns:
        Topic by the node's name for it; empty when there is no such section.

    Raises:
        ParameterError: The file cannot be read, or the section is no mapping of names to topics.
    """
    content = _content(path)
    section = content.get(REMAPPINGS, {}) if isinstance(content, dict) else {}
    section = section.get(SECTION, section) if isinstance(section, dict) else section
    if not isinstance(section, dict) or not all(isinstance(v, str) for v in section.values()):
        msg = f'{path}: {REMAPPINGS} must map names to topics, got {section!r}'
        raise ParameterError(msg)
    return {str(name): topic for name, topic in section.items()}


def _content(path: Path) -> object:
    gone = successor_note(str(path))
    if gone and not path.exists():
        raise ParameterError(gone)
    return read_yaml(path, ParameterError)


def _sections(content: object, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key == SECTION:
            yield path, value or {}
        else:
            yield from _sections(value, f'{path}/{str(key).strip("/")}')


def _matches(pattern: str, node: str) -> bool:
    tokens = [re.escape(token) for token in pattern.strip('/').split('/')]
    regex = ''.join(
        {r'\*\*': r'(/\w+)*', r'\*': r'/\w+'}.get(token, f'/{token}') for token in tokens
    )
    return re.fullmatch(regex, node) is not None


def _flatten(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield f'{prefix}{key}', value
