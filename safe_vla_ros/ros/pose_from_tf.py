"""The end effector's pose from tf, for robots that publish no `ee_pose`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import Pose, PoseStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.time import Time

from safe_vla_ros.runtime.parameters import PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from rclpy.node import Node

THROTTLE_S = 2.0


def require_tf2(ee_frame: str) -> ModuleType:
    """Return the module tf2_ros, which only a ROS 2 installation has.

    Raises:
        ParameterError: It is not installed.
    """
    try:
        return import_module('tf2_ros')
    except ImportError as error:
        what = (
            f'needs tf2_ros ({error}); install the ROS package tf2_ros_py, or leave ee_frame '
            'empty and publish the pose on ee_pose'
        )
        raise PARAMETERS['ee_frame'].error(ee_frame, what) from error


class PoseFromTf:
    """Looks up where a frame is and hands every new transform on as a pose.

    What is looked up is the newest transform, and its stamp is the pose's: a tf that falls silent
    makes the pose stale as a silent topic does.
    """

    def __init__(
        self,
        node: Node,
        *,
        ee_frame: str,
        command_frame: str,
        rate_hz: float,
        on_pose: Callable[[PoseStamped], None],
    ) -> None:
        """Listen to tf and begin to look up.

        Args:
            node: Gets the subscriptions and the timer.
            ee_frame: The end effector's frame.
            command_frame: The frame that its pose is given in.
            rate_hz: How often it is looked up, on steady time.
            on_pose: Called with each pose that has a new stamp.

        Raises:
            ParameterError: tf2_ros is not installed.
        """
        self._node = node
        self._ee_frame, self._command_frame = ee_frame, command_frame
        self._on_pose = on_pose
        self._tf2 = require_tf2(ee_frame)
        self._buffer = self._tf2.Buffer()
        self._listener = self._tf2.TransformListener(self._buffer, node)
        self._stamp: Any = None
        self._now = node.get_clock().now()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(1.0 / rate_hz, self._look_up, clock=steady)

    def close(self) -> None:
        """End the timer and the subscriptions."""
        self._node.destroy_timer(self._timer)
        self._listener.unregister()

    def _look_up(self) -> None:
        before, self._now = self._now, self._node.get_clock().now()
        if self._now < before:
            # Time jumped back; the newest transform would be one from the future.
            self._buffer.clear()
        try:
            found = self._buffer.lookup_transform(self._command_frame, self._ee_frame, Time())
        except self._tf2.TransformException as error:
            self._node.get_logger().warning(
                f'ee_frame = {self._ee_frame!r}: tf does not know it in command_frame '
                f'{self._command_frame!r}: {error}',
                throttle_duration_sec=THROTTLE_S,
            )
            return
        if found.header.stamp == self._stamp:
            return
        self._stamp = found.header.stamp
        moved = found.transform
        pose = Pose(orientation=moved.rotation)
        pose.position.x, pose.position.y = moved.translation.x, moved.translation.y
        pose.position.z = moved.translation.z
        self._on_pose(PoseStamped(header=found.header, pose=pose))
