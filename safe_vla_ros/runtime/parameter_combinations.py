"""Rules that tie several parameters, or a parameter and the policy, together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from safe_vla_ros.errors import ObservationError, ParameterError
from safe_vla_ros.layer_plan import check_layers
from safe_vla_ros.parameter_types import parameter_error
from safe_vla_ros.runtime.instructions import clean_instruction
from safe_vla_ros.runtime.proprio import check_layout, count_numbers
from safe_vla_ros.types import RENEWERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.types import PolicySpec

TOPIC_NAME = re.compile(r'^[A-Za-z_]\w*(/[A-Za-z_]\w*)*$', re.ASCII)


def check_combinations(values: Mapping[str, Any], spec: PolicySpec | None) -> None:
    """Check values, each allowed alone, against each other and against the policy.

    Args:
        values: Checked values by parameter name; a missing name or None is unset. Without a spec
            a rule is applied when every parameter it needs is there.
        spec: What the policy says about itself; None before it is known.

    Raises:
        ParameterError: A combination is not allowed.
    """
    _check_names(values)
    _check_workspace(values, complete=spec is not None)
    _check_gripper(values)
    _check_proprio(values, spec)
    _check_layers(values, spec.num_layers if spec else None)
    if spec is not None:
        _check_chunk(values, spec)
        _check_cameras(values, spec)


def without_effect(values: Mapping[str, Any], method: str) -> list[str]:
    """Return a sentence for every given value that the method in force does not use.

    Args:
        values: What was given explicitly, by parameter name.
        method: ``pruning.method`` in force.
    """
    if method not in RENEWERS or values.get('pruning.layer') is None:
        return []
    layer = values['pruning.layer']
    return [f'pruning.layer = {layer} has no effect: {method} drops no tokens from a layer on']


def _check_names(values: Mapping[str, Any]) -> None:
    cameras = values.get('cameras') or ()
    for name in cameras:
        if not TOPIC_NAME.match(name):
            raise _error(
                'cameras',
                values,
                f'{name!r} is no relative topic name (letters, digits, '
                'underscores and inner slashes, not starting with a digit)',
            )
    if len(set(cameras)) != len(cameras):
        raise _error('cameras', values, 'names must differ')
    for name in ('command_frame', 'hardware_id', 'policy', 'pruning.method'):
        if values.get(name) is not None and not values[name].strip():
            raise _error(name, values, 'must not be empty')
    try:
        clean_instruction(values.get('instruction') or '')
    except ObservationError as error:
        raise _error('instruction', values, str(error)) from None


def _check_workspace(values: Mapping[str, Any], *, complete: bool) -> None:
    lowest, highest = values.get('workspace_min'), values.get('workspace_max')
    if lowest is not None and highest is not None:
        if any(low >= high for low, high in zip(lowest, highest, strict=True)):
            raise _error(
                'workspace_min',
                values,
                f'each number must be below that of workspace_max = {list(highest)}',
            )
    elif complete and (lowest is not None or highest is not None):
        given, other = ('workspace_min', 'workspace_max')[:: 1 if lowest is not None else -1]
        raise _error(given, values, f'needs {other} too: set both (atomically) or neither')


def _check_gripper(values: Mapping[str, Any]) -> None:
    opened, closed = values.get('gripper.open_value'), values.get('gripper.closed_value')
    if opened is not None and opened == closed:
        raise _error(
            'gripper.open_value', values, f'must differ from gripper.closed_value = {closed!r}'
        )


def _check_proprio(values: Mapping[str, Any], spec: PolicySpec | None) -> None:
    layout = values.get('proprio.layout') or ()
    joints = values.get('gripper.joint_names') or ()
    check_layout(layout, joints if spec is not None else ('not known yet',))
    if spec is None or spec.proprio_dim is None:
        return
    given = count_numbers(layout, joints)
    if given != spec.proprio_dim:
        wanted = f'{spec.proprio_dim} numbers' if spec.proprio_dim else 'none'
        msg = (
            f'proprio.layout is {list(layout)} with gripper.joint_names {list(joints)}, '
            f'which makes {given} numbers; policy {spec.name} takes {wanted}'
        )
        raise ParameterError(msg)


def _check_layers(values: Mapping[str, Any], num_layers: int | None) -> None:
    names = (
        'layer',
        'refresh_layer',
        'forecast_layers',
        'saliency_layers',
        'fusion',
        'query_rows',
    )
    given = {name: values.get(f'pruning.{name}') for name in names}
    check_layers(**given, num_layers=num_layers)


def _check_chunk(values: Mapping[str, Any], spec: PolicySpec) -> None:
    for name in ('execute_steps', 'blend_steps'):
        if values[name] > spec.chunk_size:
            raise _error(
                name,
                values,
                f'must be 1 to {spec.chunk_size}, the chunk size of policy {spec.name}',
            )


def _check_cameras(values: Mapping[str, Any], spec: PolicySpec) -> None:
    count = len(values['cameras'])
    if spec.num_cameras is not None and count != spec.num_cameras:
        raise _error(
            'cameras',
            values,
            f'policy {spec.name} takes exactly {spec.num_cameras} cameras, {count} are given',
        )


def _error(name: str, values: Mapping[str, Any], what: str) -> ParameterError:
    return parameter_error(name, values[name], what)
