"""Every parameter of the node: the one table that declaring, checking and the README share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_vla_ros.runtime.motion_parameters import PLAYBACK_PARAMETERS, SAFETY_PARAMETERS
from safe_vla_ros.runtime.policy_parameters import POLICY_PARAMETERS, PRUNING_PARAMETERS

if TYPE_CHECKING:
    from safe_vla_ros.parameter_types import Parameter

PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        *POLICY_PARAMETERS,
        *PLAYBACK_PARAMETERS,
        *SAFETY_PARAMETERS,
        *PRUNING_PARAMETERS,
    )
}
"""Every parameter by name, in the order of the README."""


def markdown_table() -> str:
    """Write the README's table of parameters."""
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
