"""The launch files, where ROS 2's launch system is installed and the package was built with colcon.

The same behaviours are tested without launch in test/ros.
"""

from __future__ import annotations

import os
import signal
import time
import unittest
from pathlib import Path

import pytest

pytest.importorskip('launch_testing', reason="ROS 2's launch system is not installed")
pytest.importorskip('launch_ros', reason="ROS 2's launch system is not installed")

import launch_testing
import rclpy
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from launch_testing.actions import ReadyToTest
from launch_testing.asserts import assertExitCodes
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import DurabilityPolicy, QoSProfile

from safe_vla_ros.ros.domain import own_domain

try:
    SHARE = Path(get_package_share_directory('safe_vla_ros'))
except PackageNotFoundError:
    pytest.skip(
        'safe_vla_ros is not in the ament index: colcon build, then source install/setup.bash',
        allow_module_level=True,
    )

PATIENCE_S = 120.0
# launch_testing runs the launch system in this process.
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(own_domain())


@pytest.mark.launch_test
def generate_test_description():
    robot = Node(
        package='safe_vla_ros',
        executable='sim_robot',
        parameters=[{'autoplay': True, 'episode_duration_s': 3600.0}],
        remappings=[
            ('ee_twist', 'pruned_policy/ee_twist'),
            ('gripper', 'pruned_policy/gripper'),
        ],
    )
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / 'launch' / 'pruned_policy.launch.py')),
        launch_arguments={'params_file': str(SHARE / 'config' / 'mini_libero.yaml')}.items(),
    )
    return LaunchDescription([robot, policy, ReadyToTest()]), {'robot': robot}


class TestLifeOfTheNode(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rclpy.init()
        cls.node = rclpy.create_node('listener')
        cls.twists, cls.states, cls.beats = [], [], []
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        subscribe = cls.node.create_subscription
        subscribe(TwistStamped, 'pruned_policy/ee_twist', cls.twists.append, 50)
        subscribe(DiagnosticStatus, 'pruned_policy/state', cls.states.append, latched)
        subscribe(DiagnosticArray, '/diagnostics', cls.on_diagnostics, 10)

    @classmethod
    def tearDownClass(cls):
        cls.node.destroy_node()
        rclpy.shutdown()

    @classmethod
    def on_diagnostics(cls, message):
        if message.status[0].name.startswith('pruned_policy'):
            cls.beats.append(message)

    def spin_until(self, done, what):
        deadline_s = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline_s, f'waited in vain for {what}'
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def call(self, kind, name, request):
        client = self.node.create_client(kind, f'pruned_policy/{name}')
        self.spin_until(client.service_is_ready, name)
        future = client.call_async(request)
        self.spin_until(future.done, f'an answer of {name}')
        self.node.destroy_client(client)
        return future.result()

    def state_of_life(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.id

    def change(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.call(ChangeState, 'change_state', request).success

    def wait_for_motion(self):
        self.twists.clear()
        self.spin_until(lambda: any(speed(twist) > 0.01 for twist in self.twists), 'motion')

    def assert_silence(self):
        """Two heartbeats of the node, a second apart, without a command between them."""
        count = len(self.beats)
        self.spin_until(lambda: len(self.beats) > count, 'a heartbeat')
        self.twists.clear()
        count = len(self.beats)
        self.spin_until(lambda: len(self.beats) >= count + 2, 'two heartbeats')
        assert self.twists == []

    def test_1_the_node_comes_up_activates_and_moves_the_robot(self):
        self.spin_until(lambda: self.state_of_life() == State.PRIMARY_STATE_ACTIVE, 'active')
        self.wait_for_motion()

    def test_2_the_last_command_of_a_deactivated_node_is_zero_and_it_stays_inactive(self):
        self.change(Transition.TRANSITION_DEACTIVATE)
        self.assert_last_was_zero()
        self.assert_silence()
        assert self.state_of_life() == State.PRIMARY_STATE_INACTIVE

    def test_3_a_killed_camera_brings_zeros_then_silence(self, robot):
        self.change(Transition.TRANSITION_ACTIVATE)
        self.wait_for_motion()
        os.kill(robot.process_details['pid'], signal.SIGKILL)
        self.spin_until(lambda: 'stale' in self.states[-1].message, 'the state stale')
        self.assert_last_was_zero()
        self.assert_silence()
        assert self.state_of_life() == State.PRIMARY_STATE_ACTIVE

    def assert_last_was_zero(self):
        count = len(self.beats)
        self.spin_until(lambda: len(self.beats) > count + 1, 'two heartbeats')
        assert speed(self.twists[-1]) == 0.0


@launch_testing.post_shutdown_test()
class TestAfterShutdown(unittest.TestCase):
    def test_the_node_ended_well(self, proc_info):
        name = next(name for name in proc_info.process_names() if 'pruned_policy' in name)
        assertExitCodes(proc_info, process=name)


def speed(message):
    linear = message.twist.linear
    return (linear.x**2 + linear.y**2 + linear.z**2) ** 0.5
