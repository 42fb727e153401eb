"""Kinds of policies and how a directory's kind is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.spec import find_policy, read_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from safe_vla_ros.types import Policy, PolicySettings, PolicySpec


@dataclass(frozen=True)
class PolicyKind:
    """One kind of policy.

    Its module has ``read_spec(path)`` and ``load(path, settings, progress)``.

    Attributes:
        name: Name of the kind.
        module: Module below ``safe_vla_ros.policies``, imported only when it is needed.
        matches: Tells from the directory and its config.json whether it is of this kind.
    """

    name: str
    module: str
    matches: Callable[[Path, dict[str, Any]], bool]


def _has_action_head(directory: Path) -> bool:
    return any(directory.glob('action_head--*'))


def _is_openpi(config: dict[str, Any]) -> bool:
    return 'action_horizon' in config and 'paligemma_variant' in config


POLICY_KINDS = (
    PolicyKind('mini', 'mini', lambda _, config: config.get('model_type') == 'mini_vla'),
    PolicyKind(
        'openvla_oft',
        'openvla_oft',
        lambda path, config: config.get('model_type') == 'openvla' and _has_action_head(path),
    ),
    PolicyKind('openvla', 'openvla', lambda _, config: config.get('model_type') == 'openvla'),
    PolicyKind(
        'pi',
        'pi',
        lambda _, config: config.get('type') in ('pi0', 'pi05') or _is_openpi(config),
    ),
    PolicyKind('cogact', 'cogact', lambda _, config: isinstance(config.get('vla'), dict)),
)
"""Kinds in the order in which they are tried."""


def read_spec(reference: str) -> PolicySpec:
    """Read what a policy says about itself, without loading weights.

    Args:
        reference: See ``find_policy``.

    Raises:
        CheckpointError: Not a policy directory, or of no known kind.
    """
    directory = find_policy(reference)
    return cast('PolicySpec', _module(directory).read_spec(directory))


def load_policy(
    reference: str, settings: PolicySettings, progress: Callable[[float], None] | None = None
) -> Policy:
    """Load a policy with complete settings.

    Args:
        reference: See ``find_policy``.
        settings: Resolved settings.
        progress: Called with the share of the weights that has been read, 0 to 1.

    Raises:
        CheckpointError: The directory is missing something or holds something unusable.
    """
    directory = find_policy(reference)
    return cast('Policy', _module(directory).load(directory, settings, progress))


def _module(directory: Path) -> Any:
    config = read_config(directory)
    for kind in POLICY_KINDS:
        if kind.matches(directory, config):
            return import_module(f'safe_vla_ros.policies.{kind.module}')
    known = ', '.join(sorted({'mini_vla', 'openvla'}))
    msg = (
        f'{directory / "config.json"}: model_type is {config.get("model_type")!r}; '
        f'known model types: {known}; pi0 and pi0.5 are known by type (pi0, pi05) or by '
        'action_horizon and paligemma_variant, CogACT by vla'
    )
    raise CheckpointError(msg)
