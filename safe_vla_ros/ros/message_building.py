"""Messages of the node `pruned_policy`, from and to plain values."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Path
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from safe_vla_ros.errors import shortened
from safe_vla_ros.types import NANOSECONDS, MessageHeader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from safe_vla_ros.runtime.geometry import Pose
    from safe_vla_ros.types import Float64Array, UInt8Array


def seconds(stamp: Time) -> float:
    """Turn a stamp into seconds."""
    return float(stamp.sec + stamp.nanosec * 1e-9)


def time_message(stamp_s: float) -> Time:
    """Turn seconds into a stamp."""
    return stamp_message(MessageHeader.at(stamp_s))


def stamp_message(header: MessageHeader) -> Time:
    """Turn the stamp of a header into a message, exact to the nanosecond."""
    return Time(sec=header.stamp_ns // NANOSECONDS, nanosec=header.stamp_ns % NANOSECONDS)


def header_message(header: MessageHeader) -> Header:
    """Turn a header into a message, exact to the nanosecond."""
    return Header(stamp=stamp_message(header), frame_id=header.frame_id)


def image_message(image: UInt8Array, header: Header) -> Image:
    """Turn uint8 [H, W, 3] RGB into an ``rgb8`` image."""
    message = Image(header=header, height=image.shape[0], width=image.shape[1], encoding='rgb8')
    message.step = image.shape[1] * 3
    message.data = _bytes_field(image.tobytes())
    return message


def jpeg_message(jpeg: bytes, header: Header) -> CompressedImage:
    """Wrap a JPEG of an RGB image."""
    message = CompressedImage(header=header, format='rgb8; jpeg compressed bgr8')
    message.data = _bytes_field(jpeg)
    return message


def twist_message(
    linear_m_s: Float64Array, angular_rad_s: Float64Array, stamp: Time, frame_id: str
) -> TwistStamped:
    """Turn velocities, float64 [3] each, into a stamped twist."""
    message = TwistStamped()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    linear, angular = message.twist.linear, message.twist.angular
    linear.x, linear.y, linear.z = linear_m_s.tolist()
    angular.x, angular.y, angular.z = angular_rad_s.tolist()
    return message


def pose_message(pose: Pose, stamp: Time, frame_id: str) -> PoseStamped:
    """Turn a pose into a stamped one."""
    message = PoseStamped()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    position, orientation = message.pose.position, message.pose.orientation
    position.x, position.y, position.z = pose.position_m.tolist()
    orientation.x, orientation.y, orientation.z, orientation.w = pose.quaternion_xyzw.tolist()
    return message


def path_message(poses: Iterable[Pose], stamp: Time, frame_id: str) -> Path:
    """Turn poses into a path."""
    message = Path()
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    message.poses = [pose_message(pose, stamp, frame_id) for pose in poses]
    return message


def status_message(
    name: str, level: int, message: str, hardware_id: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    """Build one diagnostic status, long texts cut; levels are bytes in Python."""
    return DiagnosticStatus(
        name=name,
        level=bytes([level]),
        message=shortened(message),
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=shortened(value)) for key, value in values.items()],
    )


def _bytes_field(data: bytes) -> array.array[int]:
    """Make a ``uint8[]`` that rclpy takes as it is; from a list it would check every byte."""
    field = array.array('B')
    field.frombytes(data)
    return field
