"""The bundled policy's policy.yaml: what collecting, training and the node must agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from safe_vla_ros.sim.batches import LINEAR_SCALE_M
from safe_vla_ros.sim.expert import EXECUTE_STEPS, MAX_ACCEL_M_S2, MAX_SPEED_M_S, PERIOD_S
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.rollout import GRIPPER_JOINT_NAMES, PROPRIO_LAYOUT

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
    content = {
        'cameras': list(CAMERA_SIZES_PX),
        'action_period_s': PERIOD_S,
        'execute_steps': EXECUTE_STEPS,
        'proprio': {'layout': list(PROPRIO_LAYOUT)},
        'action': {
            'linear_scale_m': LINEAR_SCALE_M,
            'angular_scale_rad': 1.0,
            'rotation': 'axis_angle',
            'frame': 'base',
        },
        'gripper': {
            'open_value': 1.0,
            'closed_value': -1.0,
            'joint_names': list(GRIPPER_JOINT_NAMES),
        },
        'max_linear_speed': MAX_SPEED_M_S,
        'max_linear_accel': MAX_ACCEL_M_S2,
        'pruning': pruning,
    }
    text = yaml.safe_dump(content, sort_keys=False)
    (out / 'policy.yaml').write_text(text, encoding='utf-8')
