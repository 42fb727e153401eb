"""Pruning methods by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.pruning.pruner import Pruner
from safe_vla_ros.pruning.pruners.divprune import DivPrunePruner
from safe_vla_ros.pruning.pruners.fastv import FastVPruner
from safe_vla_ros.pruning.pruners.grid import GridPruner
from safe_vla_ros.pruning.pruners.merge import MergePruner
from safe_vla_ros.pruning.pruners.none import NonePruner
from safe_vla_ros.pruning.pruners.oracle import OraclePruner
from safe_vla_ros.pruning.pruners.random import RandomPruner
from safe_vla_ros.pruning.pruners.refresh import RefreshPruner
from safe_vla_ros.pruning.pruners.safe import SafePruner
from safe_vla_ros.pruning.pruners.sparsevlm import SparseVlmPruner
from safe_vla_ros.pruning.pruners.vla_cache import VlaCachePruner
from safe_vla_ros.pruning.pruners.vla_pruner import VlaPrunerPruner

PRUNERS: Mapping[str, Callable[[], Pruner]] = MappingProxyType(
    {
        'safe': SafePruner,
        'none': NonePruner,
        'random': RandomPruner,
        'grid': GridPruner,
        'fastv': FastVPruner,
        'sparsevlm': SparseVlmPruner,
        'divprune': DivPrunePruner,
        'vla_pruner': VlaPrunerPruner,
        'merge': MergePruner,
        'vla_cache': VlaCachePruner,
        'refresh': RefreshPruner,
    }
)
STUDY_PRUNERS: Mapping[str, Callable[[], Pruner]] = MappingProxyType({'oracle': OraclePruner})
"""Methods that cost more than not pruning and only show what others could reach."""

PRUNER_NAMES: tuple[str, ...] = tuple(PRUNERS)
"""What ``pruning.method`` may be on a robot."""

STUDY_NAMES: tuple[str, ...] = (*PRUNERS, *STUDY_PRUNERS)
"""What it may be in simulation."""


def make_pruner(name: str) -> Pruner:
    """Return the pruner of that name, also one for studies.

    Raises:
        ParameterError: There is none.
    """
    pruners = {**PRUNERS, **STUDY_PRUNERS}
    if name not in pruners:
        allowed = ', '.join(pruners)
        raise ParameterError(f'pruning.method is {name!r}, allowed is one of {allowed}')
    return pruners[name]()
