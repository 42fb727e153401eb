"""The simulated robot knows whether a policy listens, whatever node it is."""

from __future__ import annotations

import time

import pytest
import rclpy
from geometry_msgs.msg import TwistStamped
from node_bench import open_context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from std_msgs.msg import String

from safe_vla_ros.ros.policy_presence import PolicyPresence

PATIENCE_S = 20.0


class Place:
    """A robot's ends of its topics, and policies that come and go."""

    def __init__(self, context):
        self.context = context
        self.executor = SingleThreadedExecutor(context=context)
        self.robot = self.join(rclpy.create_node('robot', namespace='/place', context=context))
        self.presence = PolicyPresence(
            self.robot,
            self.robot.create_subscription(TwistStamped, 'ee_twist', lambda _: None, 1),
            self.robot.create_publisher(String, 'instruction', 1),
        )

    def join(self, node):
        self.executor.add_node(node)
        return node

    def policy(self, kind, *, hears=True):
        node = self.join(kind('policy', namespace='/place', context=self.context))
        node.create_publisher(TwistStamped, 'ee_twist', 1)
        if hears:
            node.create_subscription(String, 'instruction', lambda _: None, 1)
        return node

    def wait_missing(self, text):
        deadline_s = time.monotonic() + PATIENCE_S
        while text != (missing := self.presence.missing()) and (not text or text not in missing):
            assert time.monotonic() < deadline_s, missing
            self.executor.spin_once(timeout_sec=0.05)


@pytest.fixture
def place():
    context = open_context()
    place = Place(context)
    yield place
    for node in place.executor.get_nodes():
        node.destroy_node()
    place.executor.shutdown()
    context.try_shutdown()


def test_without_a_commander_it_says_which_topic_to_remap(place):
    assert place.presence.missing() == (
        'nobody commands the robot on /place/ee_twist; remap it to the topic of your policy, '
        'for example -r ee_twist:=pruned_policy/ee_twist'
    )


def test_who_only_commands_is_no_policy(place):
    place.policy(Node, hears=False)
    place.wait_missing('/place/policy does not listen to /place/instruction')


def test_who_only_hears_is_no_policy(place):
    place.join(rclpy.create_node('recorder', context=place.context)).create_subscription(
        String, '/place/instruction', lambda _: None, 1
    )
    place.wait_missing('nobody commands the robot')


def test_a_plain_node_that_hears_and_commands_is_a_policy(place):
    place.policy(Node)
    place.wait_missing('')


def test_a_node_that_has_gone_is_not_active(place):
    assert not place.presence._is_active('/place/nobody')


def test_a_lifecycle_node_is_a_policy_while_it_is_active(place):
    policy = place.policy(LifecycleNode)
    place.wait_missing('/place/policy is not active yet')
    policy.trigger_configure()
    place.wait_missing('/place/policy is not active yet')
    policy.trigger_activate()
    place.wait_missing('')
    policy.trigger_deactivate()
    place.wait_missing('/place/policy is not active yet')
