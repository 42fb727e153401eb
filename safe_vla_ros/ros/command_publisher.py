"""The publishers that move the robot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from std_msgs.msg import Float64

from safe_vla_ros.ros.message_building import pose_message, time_message, twist_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from builtin_interfaces.msg import Time
    from rclpy.clock import Clock

    from safe_vla_ros.ros.policy_topics import PolicyTopics
    from safe_vla_ros.runtime import Command, ControlSettings


class CommandPublisher:
    """Publishes commands while the node is active, or none in a dry run.

    Attributes:
        kind: Message type of the motion commands.
        will_send: Told the stamp of every motion command before it is sent.
    """

    def __init__(
        self, topics: PolicyTopics, clock: Clock, control: ControlSettings, *, dry_run: bool
    ) -> None:
        """Advertise the topic of the command type, and the gripper's.

        Args:
            topics: Makes the publishers.
            clock: Gives the stamp of a last zero; other commands have their own.
            control: Command type and frame.
            dry_run: Whether everything is held back.
        """
        self._clock = clock
        self._frame = control.command_frame
        self._dry_run = dry_run
        self._moved = False
        self.will_send: Callable[[Time], None] = lambda _: None
        kind, topic = (
            (TwistStamped, '~/ee_twist')
            if control.command_type == 'twist'
            else (PoseStamped, '~/ee_target')
        )
        self.kind: type = kind
        self._motion = topics.advertise(kind, topic)
        self._gripper = topics.advertise(Float64, '~/gripper')
        self._is_twist = kind is TwistStamped

    @property
    def topic(self) -> str:
        """Resolved name of the topic of motion commands."""
        return str(self._motion.topic_name)

    @property
    def announcement(self) -> str:
        """Say whether the robot will move, for the log."""
        topic = self.topic
        if self._dry_run:
            return f'DRY RUN: nothing is published on {topic}; the robot will not move'
        return f'LIVE: commands on {topic} WILL MOVE THE ROBOT as soon as it has an instruction'

    def publish(self, command: Command) -> None:
        """Publish what is due at one control tick."""
        if self._dry_run:
            return
        stamp = time_message(command.stamp_s)
        if not self._is_twist and command.target is not None:
            self._send(pose_message(command.target, stamp, self._frame))
        elif self._is_twist:
            linear, angular = command.linear_m_s, command.angular_rad_s
            self._send(twist_message(linear, angular, stamp, self._frame))
        if command.gripper is not None:
            self._gripper.publish(Float64(data=float(command.gripper)))
        self._moved = True

    def publish_zero(self) -> None:
        """Publish a last zero, if anything has been commanded and a twist is what is commanded."""
        if self._moved and self._is_twist:
            stamp = self._clock.now().to_msg()
            self._send(twist_message(np.zeros(3), np.zeros(3), stamp, self._frame))

    def _send(self, message: TwistStamped | PoseStamped) -> None:
        self.will_send(message.header.stamp)
        self._motion.publish(message)
