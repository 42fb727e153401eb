"""A robot that publishes tf instead of `ee_pose`."""

from __future__ import annotations

import sys

import pytest
import tf2_stand_in
from node_bench import moves, values_of
from rosgraph_msgs.msg import Clock
from tf2_stand_in import Buffer, TransformListener, transform

WORKSPACE = {'workspace_min': [0.0, -1.0, -1.0], 'workspace_max': [1.0, 1.0, 1.0]}


@pytest.fixture
def tf2(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', tf2_stand_in)
    Buffer.made.clear()


def feed_tf(robot, x=0.4):
    """Set transforms as often as the robot sends everything else; return what ends it."""

    def send():
        stamp = robot.node.get_clock().now().to_msg()
        Buffer.made[-1].set_transform(transform(stamp, x=x), 'test')

    return robot.every(0.02, send)


def start(robot):
    """Configure, activate and feed everything but ee_pose."""
    assert robot.transition('configure')
    assert robot.transition('activate')
    robot.silent.add('pose')
    robot.wait_matched(*robot.images.values(), robot.joints)
    robot.start_feeding()
    robot.say('go')


def test_pose_comes_from_tf_and_no_topic_is_read(tf2, start_node):
    with start_node(ee_frame='tool0', **WORKSPACE) as bench:
        robot = bench.robot
        start(robot)
        robot.wait_state('waiting', 'no ee_pose yet')
        robot.wait_log("ee_frame = 'tool0': tf does not know it in command_frame 'base_link'")
        assert robot.pose.get_subscription_count() == 0
        end = feed_tf(robot)
        robot.next('twist', moves)
        path = robot.next('path', lambda m: m.poses)
        assert path.poses[0].pose.position.x == pytest.approx(0.4, abs=0.05)
        assert bench.policy.observations[-1].proprio[0] == pytest.approx(0.4)
        end()


def test_tf_that_falls_silent_is_stale_like_a_topic(tf2, start_node):
    with start_node(ee_frame='tool0', observation_timeout_s=1.0) as bench:
        robot = bench.robot
        start(robot)
        end = feed_tf(robot)
        robot.next('twist', moves)
        end()
        robot.wait_state('stale', 'ee_pose has a stamp older than observation_timeout_s')
        robot.expect_silence()
        end = feed_tf(robot)
        robot.next('twist', moves)
        end()


def test_static_transform_without_a_stamp_is_refused_as_any_pose_without(tf2, start_node):
    with start_node(ee_frame='tool0') as bench:
        robot = bench.robot
        start(robot)
        stamp = robot.node.get_clock().now().to_msg()
        stamp.sec = stamp.nanosec = 0
        Buffer.made[-1].set_transform(transform(stamp, x=0.4), 'test')
        robot.wait_state('stale', 'ee_pose has a zero stamp')


def test_cleanup_ends_the_listener(tf2, start_node):
    with start_node(ee_frame='tool0') as bench:
        robot = bench.robot
        before = TransformListener.listening
        assert robot.transition('configure')
        assert TransformListener.listening == before + 1
        assert robot.transition('cleanup')
        assert TransformListener.listening == before


def test_buffer_is_cleared_where_time_jumps_back(tf2, start_node):
    with start_node(ee_frame='tool0', use_sim_time=True) as bench:
        robot = bench.robot
        clock = robot.node.create_publisher(Clock, '/clock', 10)
        robot.wait_matched(clock)
        assert robot.transition('configure')
        buffer = Buffer.made[-1]

        def tell(now_s):
            message = Clock()
            message.clock.sec = now_s
            clock.publish(message)

        end = robot.every(0.02, lambda: tell(200))
        robot.wait(lambda: bench.node.get_clock().now().nanoseconds == 200 * 10**9, 'time')
        end()
        assert not buffer.cleared
        end = robot.every(0.02, lambda: tell(100))
        robot.wait(lambda: buffer.cleared, 'an empty buffer')
        end()


def test_without_tf2_ros_configure_names_the_parameter_and_what_to_install(start_node, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tf2_ros', None)
    with start_node(ee_frame='tool0') as bench:
        assert not bench.robot.transition('configure')
        log = bench.robot.wait_log("configure failed: ee_frame = 'tool0': needs tf2_ros").msg
        assert 'install the ROS package tf2_ros_py, or leave ee_frame empty' in log
        assert bench.policy is None, 'it must say so before minutes of loading'
        status = values_of(bench.robot.heard['state'][-1])
        assert status['reason'] == 'the node is not configured'
