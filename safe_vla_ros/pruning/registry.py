"""Pruning methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.pruning.pruner import Pruner
from safe_vla_ros.pruning.pruners.fastv import FastVPruner
from safe_vla_ros.pruning.pruners.none import NonePruner
from safe_vla_ros.pruning.pruners.random import RandomPruner
from safe_vla_ros.pruning.pruners.refresh import RefreshPruner
from safe_vla_ros.pruning.pruners.safe import SafePruner

PRUNERS: Mapping[str, Callable[[], Pruner]] = MappingProxyType(
    {
        'safe': SafePruner,
        'none': NonePruner,
        'random': RandomPruner,
        'fastv': FastVPruner,
        'refresh': RefreshPruner,
    }
)
PRUNER_NAMES: tuple[str, ...] = tuple(PRUNERS)
"""What ``pruning.method`` may be."""


def make_pruner(name: str) -> Pruner:
    """Return the pruner of that name.

    Raises:
        ParameterError: There is none.
    """
    try:
        return PRUNERS[name]()
    except KeyError:
        allowed = ', '.join(PRUNER_NAMES)
        raise ParameterError(f'pruning.method is {name!r}, allowed is one of {allowed}') from None
