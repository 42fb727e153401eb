"""The simulated arm's robot YAML: the same for the node, the demo and episodes in process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_vla_ros.resources import find_share

if TYPE_CHECKING:
    from pathlib import Path


def robot_file() -> Path:
    """Return the path of the bundled robot YAML.

    Raises:
        SafeVlaError: The configuration is not installed.
    """
    return find_share('config') / 'mini_libero.yaml'
