"""What can be wrong with a message, and the sentence that the node then says."""

from __future__ import annotations

import math

from node_bench import unchanged
from rclpy.duration import Duration
from rclpy.time import Time


def restamped(change):
    def rewrite(message):
        message.header.stamp = change(Time.from_msg(message.header.stamp)).to_msg()
        return message

    return rewrite


BAD_STAMPS = {
    'stale': (lambda t: t - Duration(seconds=30.0), 'stamp older than observation_timeout_s'),
    'future': (lambda t: t + Duration(seconds=30.0), 'in the future'),
    'zero': (lambda t: Time(), 'zero stamp'),
}


def spoil(robot, source, change):
    if source == 'pose':
        robot.change_pose = change
    elif source == 'joints':
        robot.change_joints = change
    else:
        robot.change_image[source] = change


def mend(robot):
    robot.change_image = dict.fromkeys(robot.change_image, unchanged)
    robot.change_pose = robot.change_joints = unchanged


def with_nan_position(message):
    message.pose.position.y = math.nan
    return message


def without_orientation(message):
    message.pose.orientation.w = 0.0
    return message


def in_another_frame(message):
    message.header.frame_id = 'tool0'
    return message


def with_nan_joint(message):
    message.position = [math.inf]
    return message


BAD_VALUES = {
    'nan pose': ('pose', with_nan_position, 'ee_pose holds a value that is not finite'),
    'no orientation': ('pose', without_orientation, 'quaternion of length 0'),
    'wrong frame': ('pose', in_another_frame, "must be in command_frame 'base_link'"),
    'infinite joint': ('joints', with_nan_joint, "joint 'finger' that is not finite"),
}
