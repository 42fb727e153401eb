"""What the node uses of tf2_ros, with the signatures of the real module; PyPI has none.

Signatures: https://github.com/ros2/geometry2, tf2_ros_py/tf2_ros/{buffer,transform_listener}.py.
"""

from __future__ import annotations

from typing import ClassVar

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.time import Time


class TransformException(Exception):  # noqa: N818
    """The base of what a look-up raises."""


class LookupException(TransformException):
    """A frame does not exist."""


class Buffer:
    """Answers with the newest transform that a test has set; the test sees the buffers."""

    made: ClassVar = []

    def __init__(self, cache_time=None, node=None):
        self.transforms = {}
        self.cleared = 0
        Buffer.made.append(self)

    def set_transform(self, transform, authority):
        self.transforms[transform.header.frame_id, transform.child_frame_id] = transform

    def lookup_transform(self, target_frame, source_frame, time, timeout=Duration()):  # noqa: B008
        assert isinstance(target_frame, str)
        assert time == Time()
        found = self.transforms.get((target_frame, source_frame))
        if found is None:
            raise LookupException(f'"{source_frame}" passed to lookupTransform does not exist')
        return found

    def clear(self):
        self.cleared += 1
        self.transforms.clear()


class TransformListener:
    """Listens to nothing."""

    listening = 0

    def __init__(self, buffer, node, *, spin_thread=False, qos=None, static_qos=None):
        self.buffer, self.node = buffer, node
        TransformListener.listening += 1

    def unregister(self):
        TransformListener.listening -= 1


def transform(stamp, *, x, parent='base_link', child='tool0'):
    message = TransformStamped(child_frame_id=child)
    message.header.stamp, message.header.frame_id = stamp, parent
    message.transform.translation.x = x
    return message
