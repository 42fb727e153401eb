"""The bundled policy's policy.yaml: what collecting, training and the node must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from safe_vla_ros.sim.expert_policy import EXPERT_SPEC

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRUNING = {'layer': 2}
"""The policy's own pruning settings, see the model card."""


def write_policy_file(out: Path) -> None:
    """Write ``policy.yaml`` into a policy directory, without anything calibrated.

    Args:
        out: The directory.
    """
    spec = EXPERT_SPEC
    content = {
        'cameras': list(spec.cameras),
        'action_period_s': spec.action_period_s,
        'execute_steps': spec.execute_steps,
        'proprio': {'layout': list(spec.proprio_layout)},
        'action': {
            'linear_scale_m': spec.linear_scale_m,
            'angular_scale_rad': spec.angular_scale_rad,
            'rotation': spec.rotation,
            'frame': spec.frame,
        },
        'gripper': {
            'open_value': spec.gripper_open_value,
            'closed_value': spec.gripper_closed_value,
            'joint_names': list(spec.gripper_joint_names),
        },
        **spec.limits,
        'pruning': dict(PRUNING),
    }
    _write(out, content)


def store_pruning(out: Path, values: Mapping[str, Any]) -> None:
    """Put calibrated values into the group ``pruning`` of a ``policy.yaml``; the rest stays.

    Args:
        out: The directory.
        values: By parameter name without ``pruning.``.
    """
    content = yaml.safe_load((out / 'policy.yaml').read_text(encoding='utf-8'))
    content['pruning'] = {**content.get('pruning', {}), **values}
    _write(out, content)


def _write(out: Path, content: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False)
    (out / 'policy.yaml').write_text(text, encoding='utf-8')
