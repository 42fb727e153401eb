"""The simulated robot as a process of its own, over DDS."""

from __future__ import annotations

import math
import os
import time

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.parameter_client import AsyncParameterClient
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from safe_vla_ros.demo.processes import Child
from safe_vla_ros.ros.domain import own_domain

DOMAIN = own_domain()
ENVIRONMENT = {
    'ROS_DOMAIN_ID': str(DOMAIN),
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    'OMP_NUM_THREADS': '1',
}
PATIENCE_S = 20.0


class Client:
    """Everything that talks to the robot, and what it said."""

    def __init__(self, context):
        self.node = rclpy.create_node('client', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.heard = {}
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, kind, qos in (
            ('corner/image_raw', Image, qos_profile_sensor_data),
            ('gripper/image_raw', Image, qos_profile_sensor_data),
            ('ee_pose', PoseStamped, qos_profile_sensor_data),
            ('joint_states', JointState, qos_profile_sensor_data),
            ('instruction', String, 1),
            ('/diagnostics', DiagnosticArray, 1),
            ('sim_robot/episode', DiagnosticArray, latched),
        ):
            self.heard[topic] = []
            self.node.create_subscription(kind, topic, self.heard[topic].append, qos)
        self.twist = self.node.create_publisher(TwistStamped, 'ee_twist', 1)
        self.gripper = self.node.create_publisher(Float64, 'gripper', 1)
        self.start = self.node.create_client(Trigger, 'sim_robot/start_episode')
        self.parameters = AsyncParameterClient(self.node, 'sim_robot')

    def spin_until(self, done, timeout_s=PATIENCE_S):
        deadline_s = time.monotonic() + timeout_s
        while not done():
            assert time.monotonic() < deadline_s, 'waited in vain'
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, future):
        self.spin_until(future.done)
        return future.result()

    def set(self, **values):
        parameters = [Parameter(name, value=value) for name, value in values.items()]
        return [r.reason for r in self.call(self.parameters.set_parameters(parameters)).results]

    def next_of(self, topic, count=1):
        wanted = len(self.heard[topic]) + count
        self.spin_until(lambda: len(self.heard[topic]) >= wanted)
        return self.heard[topic][-1]

    def position(self):
        position = self.next_of('ee_pose').pose.position
        return np.array([position.x, position.y, position.z])

    def send_twist(self, linear, frame='base_link'):
        message = TwistStamped()
        message.header.frame_id = frame
        message.twist.linear.x, message.twist.linear.y, message.twist.linear.z = linear
        self.twist.publish(message)

    def drive(self, linear, states, frame='base_link'):
        """Send a twist with every state that comes in."""
        for _ in range(states):
            self.send_twist(linear, frame)
            self.next_of('ee_pose')


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    log = tmp_path_factory.mktemp('robot') / 'sim_robot.log'
    child = Child('sim_robot', 'safe_vla_ros.ros.sim_robot', [], log=log, environment=ENVIRONMENT)
    with child:
        yield child
        child.check()
    assert child.returncode == 0, log.read_text()
    assert 'Traceback' not in log.read_text()


@pytest.fixture(scope='module')
def client(robot):
    context = Context()
    os.environ.update(ENVIRONMENT)
    rclpy.init(context=context, domain_id=DOMAIN)
    client = Client(context)
    client.spin_until(client.start.service_is_ready)
    client.spin_until(lambda: client.twist.get_subscription_count() > 0)
    client.spin_until(lambda: client.heard['corner/image_raw'] and client.heard['ee_pose'])
    yield client
    client.executor.shutdown()
    client.node.destroy_node()
    rclpy.shutdown(context=context)


def wait_for_log(robot, client, text):
    client.spin_until(lambda: text in robot.log.read_text())


def test_images_poses_and_joints_arrive_with_capture_stamps(client):
    corner, gripper = client.next_of('corner/image_raw', 3), client.next_of('gripper/image_raw')
    assert (corner.height, corner.width, corner.encoding, corner.step) == (224, 224, 'rgb8', 672)
    assert (gripper.height, gripper.width, len(gripper.data)) == (112, 112, 112 * 112 * 3)
    assert np.std(np.asarray(corner.data)) > 10
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for m in (corner, gripper)]
    assert all(0.0 < time.time() - stamp < 2.0 for stamp in stamps)
    joints = client.next_of('joint_states')
    assert 'gripper_left' in joints.name
    assert len(joints.position) == len(joints.name)
    assert client.next_of('ee_pose').header.frame_id == 'base_link'


def test_an_episode_of_the_task_and_seed_starts_and_tells_its_instruction(client):
    assert client.set(task='push', seed=5) == ['', '']
    answer = client.call(client.start.call_async(Trigger.Request()))
    assert answer.success
    assert 'push, seed 5' in answer.message
    client.spin_until(lambda: client.heard['instruction'])
    assert client.heard['instruction'][-1].data == 'push the red puck to the green ball'
    client.spin_until(lambda: client.heard['sim_robot/episode'])
    event = client.heard['sim_robot/episode'][-1].status[0]
    values = {pair.key: pair.value for pair in event.values}
    assert (event.message, values['task'], values['seed']) == ('started', 'push', '5')


def test_an_unknown_task_and_a_fixed_parameter_are_refused_with_a_sentence(client):
    task, rate = client.set(task='fly', camera_rate_hz=5.0)
    assert 'must be one of reach, push' in task
    assert 'read-only' in rate


def test_the_arm_follows_a_twist_and_stops_when_the_commands_stop(client):
    start_m = client.position()
    client.drive((0.0, 0.2, 0.0), 20)
    driven_m = client.position()
    client.next_of('ee_pose', 20)
    stopped_m = client.position()
    client.next_of('ee_pose', 20)
    assert (driven_m - start_m)[1] > 0.03
    # The twist still holds for 0.1 s; a busy machine may hold the last message back a little.
    assert np.linalg.norm(stopped_m - driven_m) < 0.2 * 0.25 + 0.02
    assert np.linalg.norm(client.position() - stopped_m) < 0.005


@pytest.mark.parametrize(
    ('linear', 'frame', 'complaint'),
    [
        ((0.0, -0.3, 0.0), 'camera', "its frame_id is 'camera', this robot takes 'base_link' only"),
        ((0.0, -0.3, math.nan), 'base_link', 'it must hold finite numbers, got'),
    ],
)
def test_a_bad_twist_is_ignored_with_an_error(robot, client, linear, frame, complaint):
    before_m = client.position()
    client.drive(linear, 10, frame)
    wait_for_log(robot, client, complaint)
    assert np.linalg.norm(client.position() - before_m) < 0.01


def test_a_bad_gripper_command_is_ignored_and_a_good_one_closes_the_gripper(robot, client):
    def opening_m():
        joints = client.next_of('joint_states')
        return np.ptp(
            [joints.position[joints.name.index(f'gripper_{s}')] for s in ('left', 'right')]
        )

    open_m = opening_m()
    client.gripper.publish(Float64(data=-3.0))
    wait_for_log(robot, client, 'gripper command ignored: got -3.0, must be 0 (closed) to 1 (open)')
    client.gripper.publish(Float64(data=0.0))
    client.spin_until(lambda: abs(opening_m() - open_m) > 0.005)


def test_diagnostics_tell_achieved_rates(client):
    def own():
        # A node of another test may talk, too.
        heard = [s for message in client.heard['/diagnostics'] for s in message.status]
        return [status for status in heard if status.name == '/sim_robot: robot']

    client.spin_until(own)
    values = {pair.key: pair.value for pair in own()[-1].values}
    assert float(values['physics_hz']) > 40
    assert float(values['camera_hz']) > 5


def test_a_bad_parameter_at_start_ends_the_node_with_a_sentence(tmp_path):
    child = Child(
        'sim_robot', 'safe_vla_ros.ros.sim_robot', ['--ros-args', '-p', 'camera_rate_hz:=500.0'],
        log=tmp_path / 'log', environment=ENVIRONMENT,
    )  # fmt: skip
    with child:
        assert child.wait(PATIENCE_S) == 1
    assert (
        'camera_rate_hz must be 1 to 80 Hz (Invalid parameter value (500.0)' in child.last_lines()
    )


def test_an_integer_for_a_number_says_how_to_write_it(tmp_path):
    child = Child(
        'sim_robot', 'safe_vla_ros.ros.sim_robot', ['--ros-args', '-p', 'camera_rate_hz:=5'],
        log=tmp_path / 'log', environment=ENVIRONMENT,
    )  # fmt: skip
    with child:
        assert child.wait(PATIENCE_S) == 1
    assert 'write it as 20.0' in child.last_lines()
