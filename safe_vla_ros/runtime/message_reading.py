"""Read messages by their fields, the same for the node and the replay.

rclpy and rosbags make objects of different classes with the same fields. Nothing is judged here:
what is wrong with a message is found by whoever uses it, in the same way for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from safe_vla_ros.runtime.image_decoding import CompressedImage, RawImage
from safe_vla_ros.types import NANOSECONDS, Float64Array, MessageHeader


def read_header(message: Any) -> MessageHeader:
    """Return the header of a message that has one, exact to the nanosecond."""
    header = message.header
    stamp = header.stamp
    return MessageHeader(stamp.sec * NANOSECONDS + stamp.nanosec, header.frame_id)


def read_image(message: Any) -> RawImage | CompressedImage:
    """Return what a decoder needs out of an Image or CompressedImage; nothing is copied."""
    if not hasattr(message, 'encoding'):
        return CompressedImage(format=message.format, data=message.data)
    return RawImage(
        encoding=message.encoding,
        height=message.height,
        width=message.width,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
        data=message.data,
    )


def read_pose(message: Any) -> tuple[Float64Array, Float64Array]:
    """Return position [3] in metres and quaternion [4] as x y z w of a PoseStamped."""
    orientation = message.pose.orientation
    quaternion = (orientation.x, orientation.y, orientation.z, orientation.w)
    return _vector(message.pose.position), np.array(quaternion, dtype=np.float64)


def read_joints(message: Any) -> tuple[Sequence[str], ArrayLike]:
    """Return names and positions, radians or metres, of a JointState.

    There may be more or fewer positions than names: nobody has checked.
    """
    return message.name, message.position


def read_twist(message: Any) -> tuple[Float64Array, Float64Array]:
    """Return linear [3] in m/s and angular [3] velocity in rad/s of a TwistStamped."""
    return _vector(message.twist.linear), _vector(message.twist.angular)


def _vector(field: Any) -> Float64Array:
    return np.array((field.x, field.y, field.z), dtype=np.float64)
