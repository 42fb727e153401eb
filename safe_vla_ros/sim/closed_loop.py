"""Settings of episodes in process: the robot YAML over the policy's own, as in the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.policies import load_policy, read_spec
from safe_vla_ros.pruning import STUDY_NAMES
from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.runtime.proprio import joints_in_use
from safe_vla_ros.sim.arm import BASE_FRAME, GRIPPER_JOINTS
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.robot_file import robot_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Policy, PolicySpec

IN_PROCESS = {'device': 'cpu', 'dtype': 'float32'}
"""Many episodes run at once, one per core, and must come out the same on every machine."""


def resolve_episode(spec: PolicySpec, changes: Mapping[str, Any] | None = None) -> Resolved:
    """Resolve the settings of episodes of a policy on the simulated arm.

    Args:
        spec: What the policy says about itself.
        changes: Parameters by name that stand over ``IN_PROCESS`` and the robot YAML.

    Raises:
        ParameterError: A value or a combination is not allowed, or the arm cannot do it.
    """
    values = {**read_parameter_file(robot_file()), **IN_PROCESS, **(changes or {})}
    resolved = resolve(values, spec, pruner_names=STUDY_NAMES)
    _check_arm(resolved)
    return resolved


def load_bundled(reference: str, changes: Mapping[str, Any] | None = None) -> Policy:
    """Load a policy of the bundled kind with the settings of ``resolve_episode``.

    Raises:
        CheckpointError: It cannot be loaded.
        ParameterError: As ``resolve_episode``.
    """
    return load_policy(reference, resolve_episode(read_spec(reference), changes).policy)


def _check_arm(resolved: Resolved) -> None:
    policy, control = resolved.policy, resolved.control
    joints = joints_in_use(policy.proprio_layout, policy.gripper_joint_names)
    for name, given, allowed in (
        ('command_frame', {control.command_frame}, {BASE_FRAME}),
        ('command_type', {control.command_type}, {'twist'}),
        ('cameras', set(policy.cameras), set(CAMERA_SIZES_PX)),
        ('a joint of proprio.layout', set(joints), set(GRIPPER_JOINTS)),
    ):
        unknown = given - allowed
        if unknown:
            msg = (
                f'{name} is {", ".join(sorted(unknown))}, which the simulated arm does not have; '
                f'allowed: {", ".join(sorted(allowed))}'
            )
            raise ParameterError(msg)
