"""What is attacked: each target makes what it needs in a folder and returns one case's function."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random


class Target(NamedTuple):
    """Something that reads what others have written.

    Attributes:
        module, function: What makes, from an empty folder, the function that runs one case.
        weight: Share of the time.
        quiet: Whether a word on stderr is a failure.
    """

    module: str
    function: str
    weight: int = 1
    quiet: bool = True

    def prepare(self, folder: Path) -> Callable[[Random], None]:
        """Make the function that runs one case; only now is anything large imported."""
        case: Callable[[Random], None] = getattr(import_module(self.module), self.function)(folder)
        return case


TARGETS = {
    'images/compressed': Target('images', 'compressed', 6),
    'images/raw': Target('images', 'raw', 1),
    'messages': Target('recordings', 'messages', 2),
    'bags/mcap': Target('recordings', 'mcap', 4),
    'bags/sqlite3': Target('recordings', 'sqlite', 4),
    'robot_yaml': Target('policy_files', 'robot_yaml', 3),
    'safetensors': Target('policy_files', 'safetensors', 2),
    'component': Target('policy_files', 'component', 3, quiet=False),
    'policy/mini': Target('policy_files', 'mini', 5, quiet=False),
    'policy/openvla': Target('policy_files', 'openvla', 4, quiet=False),
    'policy/openvla_oft': Target('policy_files', 'openvla_oft', 5, quiet=False),
    'policy/cogact': Target('policy_files', 'cogact', 5, quiet=False),
    'policy/golden': Target('policy_files', 'golden', 4, quiet=False),
    'policy/pi05': Target('policy_files', 'pi05', 5, quiet=False),
}

FAULTS = Target('faults', 'faults')
"""What the runner must notice; only for its own test."""
