"""What waits in the queues of the node's subscriptions."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import rclpy
from node_bench import open_context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from safe_vla_ros.ros.policy_topics import PolicyTopics
from safe_vla_ros.ros.subscriptions import Subscriptions

PATIENCE_S = 10.0
BURSTS, ARM_MESSAGES = 3, 15


@pytest.fixture
def context():
    opened = open_context()
    yield opened
    opened.try_shutdown()


def make_executor(context, name):
    node = rclpy.create_node(name, context=context, namespace='two_publishers')
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    return node, executor


def spin_until(executor, found):
    deadline_s = time.monotonic() + PATIENCE_S
    while not found():
        assert time.monotonic() < deadline_s, 'it did not come'
        executor.spin_once(timeout_sec=0.05)


def test_an_arm_does_not_push_the_grippers_joint_states_out_of_the_queue(context):
    busy, busy_executor = make_executor(context, 'busy')
    others, executor = make_executor(context, 'others')
    stored, heard = [], []
    Subscriptions(
        busy,
        PolicyTopics(busy),
        SimpleNamespace(put_joints=lambda names, _positions, header: stored.append(names)),
        cameras=(),
        image_transport='raw',
        ee_frame='',
        command_frame='base_link',
        rate_hz=50.0,
        on_image=lambda: None,
    )
    others.create_subscription(JointState, 'joint_states', heard.append, 100)
    gripper, arm = (
        others.create_publisher(JointState, 'joint_states', QoSProfile(depth=100)) for _ in range(2)
    )
    spin_until(executor, lambda: all(p.get_subscription_count() == 2 for p in (gripper, arm)))
    spin_until(busy_executor, lambda: busy.count_publishers('/two_publishers/joint_states') == 2)

    for _ in range(BURSTS):
        heard.clear()
        stored.clear()
        gripper.publish(JointState(name=['finger'], position=[0.01]))
        for _ in range(ARM_MESSAGES):
            arm.publish(JointState(name=['elbow'], position=[0.5]))
        # Whoever reads all has read all: now they wait for the busy one, too.
        spin_until(executor, lambda: len(heard) == 1 + ARM_MESSAGES)
        spin_until(busy_executor, lambda: len(stored) == 1 + ARM_MESSAGES)
        assert ['finger'] in stored
