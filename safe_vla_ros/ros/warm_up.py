"""The first inferences, before anything depends on how long they take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.proprio import assemble_proprio, joints_in_use
from safe_vla_ros.types import MessageHeader, Observation

if TYPE_CHECKING:
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Policy

PASSES = 2
"""A key step and, with most methods, a pruned step."""

IMAGE_SIDE_PX = 224
INSTRUCTION = 'warm up'


class Trial(NamedTuple):
    """What the first inferences have shown.

    Attributes:
        durations_s: How long each of the ``PASSES`` took, seconds.
        context_bytes: Size of the keys and values that the method keeps between steps.
    """

    durations_s: list[float]
    context_bytes: int


def warm_up(policy: Policy, resolved: Resolved) -> Trial:
    """Run the policy on grey images and a robot at rest.

    Raises:
        SafeVlaError: The policy cannot work with these settings.
    """
    settings = resolved.policy
    grey = np.full((IMAGE_SIDE_PX, IMAGE_SIDE_PX, 3), 127, np.uint8)
    proprio = None
    if settings.proprio_layout:
        names = joints_in_use(settings.proprio_layout, settings.gripper_joint_names)
        proprio = assemble_proprio(
            settings.proprio_layout,
            pose=Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0])),
            joints=dict.fromkeys(names, 0.0),
            gripper_joint_names=settings.gripper_joint_names,
        )
    memory = policy.new_episode()
    durations_s = []
    context_bytes = 0
    for step in range(PASSES):
        header = MessageHeader.at(1.0 + 0.1 * step)
        observation = Observation(
            images=dict.fromkeys(settings.cameras, grey),
            instruction=resolved.node.instruction or INSTRUCTION,
            proprio=proprio,
            image_headers=dict.fromkeys(settings.cameras, header),
        )
        start_s = time.perf_counter()
        chunk = policy.infer(observation, memory, resolved.pruning)
        durations_s.append(time.perf_counter() - start_s)
        context_bytes = chunk.record.context_bytes
    return Trial(durations_s, context_bytes)
