"""Settings under which the bundled policy is collected for, trained and evaluated."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from safe_vla_ros.policies import load_policy, read_spec
from safe_vla_ros.runtime.settings import ControlSettings, MotionLimits
from safe_vla_ros.sim.expert import EXECUTE_STEPS, MAX_ACCEL_M_S2, MAX_SPEED_M_S, PERIOD_S
from safe_vla_ros.types import PolicySettings, PolicySpec, PruningSettings

if TYPE_CHECKING:
    from safe_vla_ros.types import Policy


def control_settings() -> ControlSettings:
    """Return playback and limits of the bundled policy, as its policy.yaml has them."""
    limits = MotionLimits(max_linear_speed=MAX_SPEED_M_S, max_linear_accel=MAX_ACCEL_M_S2)
    return ControlSettings(
        frame='base', action_period_s=PERIOD_S, execute_steps=EXECUTE_STEPS, limits=limits
    )


def pruning_settings(spec: PolicySpec, method: str, keep_ratio: float = 0.25) -> PruningSettings:
    """Return the policy's own pruning settings with a method and a keep ratio."""
    known = {field.name for field in fields(PruningSettings)}
    own = {key: value for key, value in spec.pruning.items() if key in known}
    if 'forecast_layers' in own:
        own['forecast_layers'] = tuple(own['forecast_layers'])
    return PruningSettings(**{**own, 'method': method, 'keep_ratio': keep_ratio})


def load_bundled(reference: str, *, dtype: str = 'float32') -> Policy:
    """Load a policy of the bundled kind on the CPU with the values of its own policy.yaml."""
    spec = read_spec(reference)
    settings = PolicySettings(
        cameras=spec.cameras,
        proprio_layout=spec.proprio_layout,
        gripper_joint_names=spec.gripper_joint_names,
        linear_scale_m=spec.linear_scale_m or 1.0,
        angular_scale_rad=spec.angular_scale_rad or 1.0,
        rotation=spec.rotation or 'axis_angle',
        rotate_180=spec.rotate_180,
        center_crop=spec.center_crop,
        jpeg_roundtrip=spec.jpeg_roundtrip,
        gripper_open_value=1.0 if spec.gripper_open_value is None else spec.gripper_open_value,
        gripper_closed_value=(
            -1.0 if spec.gripper_closed_value is None else spec.gripper_closed_value
        ),
        device='cpu',
        dtype=dtype,
    )
    return load_policy(reference, settings)
