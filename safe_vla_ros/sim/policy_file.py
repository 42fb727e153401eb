"""The bundled policy's policy.yaml: what collecting, training and the node must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from safe_vla_ros.sim.expert_policy import EXPERT_SPEC

if TYPE_CHECKING:
    from pathlib import Path

PRUNING = {'layer': 2}
"""The policy's own pruning settings, see the model card."""


def write_policy_file(out: Path, *, refresh_threshold: float | None = None) -> None:
    """Write ``policy.yaml`` into a policy directory.

    Args:
        out: The directory.
        refresh_threshold: Calibrated gamma; left out when it is not known yet.
    """
    pruning: dict[str, Any] = dict(PRUNING)
    if refresh_threshold is not None:
        pruning['refresh_threshold'] = round(float(refresh_threshold), 4)
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
        'pruning': pruning,
    }
    text = yaml.safe_dump(content, sort_keys=False)
    (out / 'policy.yaml').write_text(text, encoding='utf-8')
