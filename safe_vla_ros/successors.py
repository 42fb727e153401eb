"""What this package once brought along, and what has taken its place."""

from __future__ import annotations

from pathlib import PurePath

_SUCCESSORS = {'mini_metaworld': 'mini_libero'}
"""Bundled policies; each had a robot YAML of its name."""


def successor_note(reference: str) -> str:
    """Return a sentence that names the successor of a bundled policy or of its robot YAML.

    Args:
        reference: A name or path, of a policy or a parameter file.

    Returns:
        The sentence; empty when the reference names nothing that has gone.
    """
    name = PurePath(reference).name.removesuffix('.yaml')
    successor = _SUCCESSORS.get(name)
    if successor is None:
        return ''
    return (
        f'{name} went with the MetaWorld arm in version 0.2. Its successor is {successor}, for the '
        f'simulated Panda: policy: {successor}, robot YAML config/{successor}.yaml'
    )
