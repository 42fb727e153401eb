"""Messages of the simulated robot, from and to plain values."""

from __future__ import annotations

import array
import math
from typing import TYPE_CHECKING

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState

from safe_vla_ros.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from geometry_msgs.msg import TwistStamped

    from safe_vla_ros.ros.sim_robot_loop import EpisodeEvent, RobotState
    from safe_vla_ros.types import Float64Array, UInt8Array

STILL_RAD_S = 0.01
"""Angular speed below which a twist counts as a translation."""


def time_message(stamp_s: float) -> Time:
    """Turn seconds into a time message."""
    nanoseconds = round(stamp_s * 1e9)
    return Time(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def image_message(image: UInt8Array, stamp_s: float, frame_id: str) -> Image:
    """Turn uint8 [H, W, 3] RGB into an ``rgb8`` image."""
    message = Image(height=image.shape[0], width=image.shape[1], encoding='rgb8', is_bigendian=0)
    message.header.stamp = time_message(stamp_s)
    message.header.frame_id = frame_id
    message.step = image.shape[1] * 3
    data = array.array('B')
    data.frombytes(image.tobytes())
    message.data = data
    return message


def pose_message(state: RobotState, frame_id: str) -> PoseStamped:
    """Tell where the end effector is."""
    message = PoseStamped()
    message.header.stamp = time_message(state.stamp_s)
    message.header.frame_id = frame_id
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = map(float, state.ee_position)
    orientation.x, orientation.y, orientation.z, orientation.w = map(
        float, state.ee_quaternion_xyzw
    )
    return message


def joint_message(state: RobotState) -> JointState:
    """Tell where the joints are."""
    message = JointState()
    message.header.stamp = time_message(state.stamp_s)
    message.name = list(state.joint_names)
    message.position = [float(position) for position in state.joint_positions]
    return message


def episode_message(event: EpisodeEvent, node_name: str) -> DiagnosticArray:
    """Tell what happened to an episode."""
    level = DiagnosticStatus.WARN if event.kind in ('timeout', 'aborted') else DiagnosticStatus.OK
    values = {
        'episode': str(event.episode),
        'task': event.task,
        'seed': str(event.seed),
        'instruction': event.instruction,
        'elapsed_s': f'{event.elapsed_s:.4f}',
    }
    status = status_message(f'{node_name}: episode', level, event.kind, values)
    message = DiagnosticArray(status=[status])
    message.header.stamp = time_message(event.stamp_s)
    return message


def status_message(
    name: str, level: bytes, message: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """Build one diagnostic status."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id='sim',
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )


def linear_velocity(message: TwistStamped, base_frame: str) -> Float64Array:
    """Read the linear part of a twist.

    Returns:
        float64 [3], m/s in the base frame.

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
    return np.array(numbers[:3])


def turns(message: TwistStamped) -> bool:
    """Tell whether a twist asks for a rotation."""
    angular = message.twist.angular
    return math.hypot(angular.x, angular.y, angular.z) > STILL_RAD_S
