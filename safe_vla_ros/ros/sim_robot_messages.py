"""Messages of the simulated robot, from and to plain values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import JointState
from std_msgs.msg import Header

from safe_vla_ros.errors import ObservationError
from safe_vla_ros.ros.message_building import (
    image_message,
    pose_message,
    status_message,
    time_message,
)
from safe_vla_ros.runtime.diagnostics import NONE
from safe_vla_ros.runtime.geometry import Pose

if TYPE_CHECKING:
    from geometry_msgs.msg import PoseStamped, TwistStamped
    from sensor_msgs.msg import Image

    from safe_vla_ros.sim.robot_loop import EpisodeEvent, RobotState
    from safe_vla_ros.types import Float64Array, UInt8Array

HARDWARE_ID = 'sim'


def camera_message(image: UInt8Array, stamp_s: float, frame_id: str) -> Image:
    """Turn uint8 [H, W, 3] RGB into an ``rgb8`` image of that moment."""
    return image_message(image, Header(stamp=time_message(stamp_s), frame_id=frame_id))


def ee_pose_message(state: RobotState, frame_id: str) -> PoseStamped:
    """Tell where the end effector is."""
    pose = Pose(state.ee_position, state.ee_quaternion_xyzw)
    return pose_message(pose, time_message(state.stamp_s), frame_id)


def joint_message(state: RobotState) -> JointState:
    """Tell where the joints are."""
    message = JointState()
    message.header.stamp = time_message(state.stamp_s)
    message.name = list(state.joint_names)
    message.position = [float(position) for position in state.joint_positions]
    return message


def episode_message(event: EpisodeEvent, node_name: str) -> DiagnosticArray:
    """Tell what happened to an episode."""
    level = 1 if event.kind in ('timeout', 'aborted') else 0
    values = {
        'episode': str(event.episode),
        'task': event.task,
        'seed': str(event.seed),
        'init_state': NONE if event.init_state is None else str(event.init_state),
        'instruction': event.instruction,
        'elapsed_s': f'{event.elapsed_s:.4f}',
        'first_lifted': event.first_lifted or NONE,
    }
    status = status_message(f'{node_name}: episode', level, event.kind, HARDWARE_ID, values)
    message = DiagnosticArray(status=[status])
    message.header.stamp = time_message(event.stamp_s)
    return message


def velocities(message: TwistStamped, base_frame: str) -> tuple[Float64Array, Float64Array]:
    """Read a twist.

    Returns:
        Linear float64 [3] in m/s and angular float64 [3] in rad/s, in the base frame.

    Raises:
        ObservationError: Another frame, or a number that is not finite.
    """
    frame = message.header.frame_id
    if frame != base_frame:
        msg = f"twist ignored: its frame_id is '{frame}', this robot takes '{base_frame}' only"
        raise ObservationError(msg)
    linear, angular = message.twist.linear, message.twist.angular
    numbers = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
    if not all(map(math.isfinite, numbers)):
        msg = f'twist ignored: it must hold finite numbers, got {list(numbers)}'
        raise ObservationError(msg)
    return np.array(numbers[:3]), np.array(numbers[3:])
