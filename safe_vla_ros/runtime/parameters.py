"""From parameter values and a policy's spec to checked settings, whole or not at all."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.parameter_types import Change, Parameter
from safe_vla_ros.runtime.parameter_combinations import check_combinations
from safe_vla_ros.runtime.parameter_table import PARAMETERS, markdown_table
from safe_vla_ros.runtime.settings import ControlSettings, MotionLimits, Workspace
from safe_vla_ros.types import PolicySettings, PruningSettings

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

OPTIONAL = frozenset(
    {
        'proprio.layout',
        'gripper.joint_names',
        'workspace_min',
        'workspace_max',
        'pruning.refresh_layer',
        'pruning.forecast_layers',
    }
)
"""Parameters that may stay unset when neither the user nor the policy gives them."""


@dataclass(frozen=True)
class NodeSettings:
    """What only the node needs.

    Attributes:
        control_rate_hz: Rate of the commands.
        image_transport: ``raw`` or ``compressed``.
        instruction: Initial instruction, may be empty.
        dry_run: Whether commands are held back.
        hardware_id: Name of the robot in the diagnostics.
        inference_threads: CPU threads of one inference, 0 for a sensible number.
        saliency_max_rate_hz: Largest rate of the overlay images.
        saliency_alpha: Opacity of their heat, 0..1.
    """

    control_rate_hz: float
    image_transport: str
    instruction: str
    dry_run: bool
    hardware_id: str
    inference_threads: int
    saliency_max_rate_hz: float
    saliency_alpha: float


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
        values: Explicit values by parameter name; None or an empty array means unset.

    Returns:
        The values that are set, as str, bool, int, float or tuples of these.

    Raises:
        ParameterError: Unknown name, wrong type, out of range, or a bad combination.
    """
    checked = {name: find_parameter(name).check(value) for name, value in values.items()}
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
        merged[name] = given[name] if name in given else _own_or_default(parameter, spec)
    missing = [name for name, value in merged.items() if value is None and name not in OPTIONAL]
    if missing:
        needed = '; '.join(f'{name} ({PARAMETERS[name].allowed})' for name in missing)
        msg = f'policy {spec.name} does not say these parameters, so they must be set: {needed}'
        raise ParameterError(msg)
    merged['unnorm_key'] = _choose_unnorm_key(merged['unnorm_key'], spec)
    _check_pruner(merged['pruning.method'], pruner_names)
    check_combinations(merged, spec)
    return Resolved(
        policy=_policy_settings(merged),
        control=_control_settings(merged),
        pruning=_pruning_settings(merged),
        node=_node_settings(merged),
        values=merged,
    )


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


def _own_or_default(parameter: Parameter, spec: PolicySpec) -> Any:
    value = _own(parameter, spec)
    if value is None:
        return parameter.default
    if parameter.element_type == 'double':
        value = _with_fractions(value)
    try:
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


def _with_fractions(value: Any) -> Any:
    """Write a policy file's integers as floating-point numbers."""
    if isinstance(value, (list, tuple)):
        return [_with_fractions(element) for element in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


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
        raise PARAMETERS['pruning.method'].error(name, f'must be one of {", ".join(names)}')


def _policy_settings(values: Mapping[str, Any]) -> PolicySettings:
    return PolicySettings(
        cameras=values['cameras'],
        proprio_layout=values['proprio.layout'] or (),
        gripper_joint_names=values['gripper.joint_names'] or (),
        linear_scale_m=values['action.linear_scale_m'],
        angular_scale_rad=values['action.angular_scale_rad'],
        rotation=values['action.rotation'],
        gripper_open_value=values['gripper.open_value'],
        gripper_closed_value=values['gripper.closed_value'],
        rotate_180=values['image.rotate_180'],
        center_crop=values['image.center_crop'],
        jpeg_roundtrip=values['image.jpeg_roundtrip'],
        unnorm_key=values['unnorm_key'],
        device=values['device'],
        dtype=values['dtype'],
    )


def _control_settings(values: Mapping[str, Any]) -> ControlSettings:
    workspace = None
    if values['workspace_min'] is not None:
        workspace = Workspace(
            values['workspace_min'], values['workspace_max'], values['workspace_margin_m']
        )
    limits = ('max_linear_speed', 'max_angular_speed', 'max_linear_accel', 'max_angular_accel')
    same_names = (
        'action_period_s',
        'execute_steps',
        'blending',
        'blend_steps',
        'command_type',
        'command_frame',
        'observation_timeout_s',
        'max_chunk_age_s',
        'max_camera_skew_s',
        'starvation_grace_s',
        'halt_zero_duration_s',
        'max_consecutive_failures',
        'control_rate_hz',
    )
    return ControlSettings(
        frame=values['action.frame'],
        limits=MotionLimits(**{name: values[name] for name in limits}),
        workspace=workspace,
        **{name: values[name] for name in same_names},
    )


def _pruning_settings(values: Mapping[str, Any]) -> PruningSettings:
    prefix = 'pruning.'
    fields = {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
    fields['forecast_layers'] = fields['forecast_layers'] or ()
    return PruningSettings(**fields)


def _node_settings(values: Mapping[str, Any]) -> NodeSettings:
    names = (
        'control_rate_hz',
        'image_transport',
        'instruction',
        'dry_run',
        'hardware_id',
        'inference_threads',
        'saliency.max_rate_hz',
        'saliency.alpha',
    )
    return NodeSettings(**{name.replace('.', '_'): values[name] for name in names})


if __name__ == '__main__':
    sys.stdout.write(markdown_table())
