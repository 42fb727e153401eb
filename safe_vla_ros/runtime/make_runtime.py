"""The one place where settings become a runtime: for the node, the replay and the simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_vla_ros.runtime.policy_runtime import PolicyRuntime

if TYPE_CHECKING:
    from safe_vla_ros.runtime.image_decoding import Fallback
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Clock, Policy


def make_runtime(
    policy: Policy,
    resolved: Resolved,
    *,
    clock: Clock,
    instruction: str | None = None,
    steady_clock: Clock | None = None,
    image_fallback: Fallback | None = None,
) -> PolicyRuntime:
    """Put a runtime together from resolved settings; inactive.

    Args:
        policy: Turns observations into chunks; loaded with ``resolved.policy``.
        resolved: Settings.
        clock: Time of stamps, ages and ticks.
        instruction: The task until another one is set; None takes that of the settings.
        steady_clock: See ``PolicyRuntime``.
        image_fallback: See ``PolicyRuntime``.
    """
    return PolicyRuntime(
        policy=policy,
        cameras=resolved.policy.cameras,
        proprio_layout=resolved.policy.proprio_layout,
        gripper_joint_names=resolved.policy.gripper_joint_names,
        control=resolved.control,
        pruning=resolved.pruning,
        clock=clock,
        initial_instruction=resolved.node.instruction if instruction is None else instruction,
        steady_clock=steady_clock,
        image_fallback=image_fallback,
    )
