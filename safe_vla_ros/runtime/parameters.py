"""From parameter values and a policy's spec to checked settings, whole or not at all."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.parameter_types import (
    LARGEST_INT,
    Change,
    Parameter,
    build_settings,
    parameters_of,
)
from safe_vla_ros.runtime.parameter_combinations import check_combinations
from safe_vla_ros.runtime.settings import ControlSettings, NodeSettings
from safe_vla_ros.types import STUDY_METHODS, PolicySettings, PruningSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from safe_vla_ros.types import PolicySpec

__all__ = [
    'PARAMETERS',
    'Change',
    'NodeSettings',
    'Parameter',
    'Resolved',
    'check_values',
    'markdown_table',
    'resolve',
]


ROS_OWN = frozenset({'use_sim_time', 'start_type_description_service'})
ROS_OWN_PREFIX = 'qos_overrides.'
"""Parameters that ROS declares on every node, not all of them in every distribution."""

SETTINGS = (NodeSettings, PolicySettings, ControlSettings, PruningSettings)


def _collect() -> dict[str, Parameter]:
    found = [parameter for settings in SETTINGS for parameter in parameters_of(settings)]
    table = [parameter for parameter in found if not parameter.after]
    for parameter in found:
        if parameter.after:
            names = [earlier.name for earlier in table]
            table.insert(names.index(parameter.after) + 1, parameter)
    return {parameter.name: parameter for parameter in table}


PARAMETERS: dict[str, Parameter] = _collect()
"""Every parameter by name, in the order of the table that ``markdown_table`` writes."""


@dataclass(frozen=True)
class Resolved:
    """Settings of every part, complete and checked against each other.

    Attributes:
        policy: What the policy is loaded with.
        control: How chunks become commands.
        pruning: How visual tokens are pruned.
        node: What only the node needs.
        values: The value in force of every parameter; None where it is unset.
    """

    policy: PolicySettings
    control: ControlSettings
    pruning: PruningSettings
    node: NodeSettings
    values: Mapping[str, Any]


def check_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Check given values one by one and against each other, without a policy.

    Args:
        values: Explicit values by parameter name; None or an empty array means unset. What ROS
            itself takes is left out, and what nobody knows if ``allow_unknown_parameters`` is true.

    Returns:
        The node's own values that are set, as str, bool, int, float or tuples of these.

    Raises:
        ParameterError: Unknown name, wrong type, out of range, or a bad combination.
    """
    lenient = values.get('allow_unknown_parameters') is True
    checked = {
        name: find_parameter(name).check(value)
        for name, value in values.items()
        if name in PARAMETERS or not (lenient or is_ros_own(name))
    }
    given = {name: value for name, value in checked.items() if value is not None}
    check_combinations(given, None)
    return given


def resolve(
    values: Mapping[str, Any],
    spec: PolicySpec,
    *,
    pruner_names: Collection[str] | None = None,
) -> Resolved:
    """Put the user's values over the policy's own over the defaults, and check the whole.

    Args:
        values: Explicit values by parameter name; None or an empty array means unset.
        spec: What the policy says about itself.
        pruner_names: Registered pruners; None leaves the name to whoever makes the pruner.

    Returns:
        Complete settings.

    Raises:
        ParameterError: A value or a combination is not allowed, or the policy needs a value that
            nobody gives; the message names parameter, value and what is allowed.
    """
    given = check_values(values)
    merged: dict[str, Any] = {}
    for name, parameter in PARAMETERS.items():
        merged[name] = given[name] if name in given else _own_or_default(parameter, spec, merged)
    missing = [
        name for name, value in merged.items() if value is None and not PARAMETERS[name].optional
    ]
    if missing:
        needed = '; '.join(f'{name} ({PARAMETERS[name].allowed})' for name in missing)
        msg = f'policy {spec.name} does not say these parameters, so they must be set: {needed}'
        raise ParameterError(msg)
    merged['unnorm_key'] = _choose_unnorm_key(merged['unnorm_key'], spec)
    _check_pruner(merged['pruning.method'], pruner_names)
    check_combinations(merged, spec)
    return Resolved(
        policy=build_settings(PolicySettings, merged),
        control=build_settings(ControlSettings, merged),
        pruning=build_settings(PruningSettings, merged),
        node=build_settings(NodeSettings, merged),
        values=merged,
    )


def is_ros_own(name: str) -> bool:
    """Tell whether ROS itself takes a parameter of that name."""
    return name in ROS_OWN or name.startswith(ROS_OWN_PREFIX)


def find_parameter(name: str) -> Parameter:
    """Return the parameter of that name.

    Raises:
        ParameterError: There is none; the message names the nearest.
    """
    if name in PARAMETERS:
        return PARAMETERS[name]
    near = difflib.get_close_matches(name, PARAMETERS, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    msg = f'{name} is not a parameter of this node{hint}'
    raise ParameterError(msg)


def _own_or_default(parameter: Parameter, spec: PolicySpec, merged: Mapping[str, Any]) -> Any:
    value = _own(parameter, spec)
    if value is None:
        return parameter.default
    if parameter.element_type == 'double':
        value = _with_fractions(value)
    try:
        if parameter.own_over and isinstance(value, dict):
            value = _at(parameter, value, merged[parameter.own_over])
        value = parameter.check(value)
    except ParameterError as error:
        msg = f'policy {spec.name}: {error}'
        raise ParameterError(msg) from None
    return parameter.default if value is None else value


def _own(parameter: Parameter, spec: PolicySpec) -> Any:
    if not parameter.own:
        return None
    group, _, key = parameter.own.rpartition('.')
    return getattr(spec, group).get(key) if group else getattr(spec, key)


def _at(parameter: Parameter, table: Mapping[Any, Any], place: float) -> float:
    """Read a policy's table of values: between two places in proportion, beyond them the nearest.

    Raises:
        ParameterError: It is empty, or holds something else than allowed numbers.
    """
    numbers = {_with_fractions(key): _with_fractions(value) for key, value in table.items()}
    if not numbers or not all(isinstance(cell, float) for pair in numbers.items() for cell in pair):
        what = f'must be a number, or map numbers for {parameter.own_over} to numbers'
        raise parameter.error(dict(table), what)
    places = sorted(numbers)
    return float(np.interp(place, places, [parameter.check(numbers[one]) for one in places]))


def _with_fractions(value: Any) -> Any:
    """Write a policy file's integers as floating-point numbers."""
    if isinstance(value, (list, tuple)):
        return [_with_fractions(element) for element in value]
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST_INT:
        return value
    return float(value)


def _choose_unnorm_key(key: str, spec: PolicySpec) -> str:
    keys = spec.unnorm_keys
    if not key and len(keys) == 1:
        return keys[0]
    if key not in keys and (key or keys):
        allowed = f'one of {", ".join(keys)}' if keys else 'empty, this checkpoint holds none'
        raise PARAMETERS['unnorm_key'].error(key, f'must be {allowed} (policy {spec.name})')
    return key


def _check_pruner(name: str, names: Collection[str] | None) -> None:
    if names is not None and name not in names:
        why = ''
        if name in STUDY_METHODS:
            why = f'; {name} runs every step twice and is for studies in simulation only'
        raise PARAMETERS['pruning.method'].error(name, f'must be one of {", ".join(names)}{why}')


def markdown_table() -> str:
    """Write the table in docs/parameters.md."""
    rows = ['| name | type | default | allowed | changes | meaning |', '|---|---|---|---|---|---|']
    for parameter in PARAMETERS.values():
        cells = (
            f'`{parameter.name}`',
            parameter.type,
            _default_text(parameter),
            parameter.allowed,
            parameter.change.value,
            parameter.description,
        )
        rows.append(
            '| ' + ' | '.join(cell.replace('|', '\\|').replace('<', '\\<') for cell in cells) + ' |'
        )
    return '\n'.join(rows) + '\n'


def _default_text(parameter: Parameter) -> str:
    value = parameter.default
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = value or '""'
    else:
        text = '' if value is None else str(value)
    if not parameter.own:
        return text or 'unset'
    return f"policy's own, else {text}" if text else "policy's own"


if __name__ == '__main__':
    sys.stdout.write(markdown_table())
