"""The simulated robot as a process of its own, over DDS."""

from __future__ import annotations

import math
import os
import signal
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
from safe_vla_ros.ros.sim_robot import _following
from safe_vla_ros.sim.robot_loop import EpisodeEvent
from safe_vla_ros.sim.tasks import TASKS

DOMAIN = own_domain()
ENVIRONMENT = {
    'ROS_DOMAIN_ID': str(DOMAIN),
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    'OMP_NUM_THREADS': '1',
}
PATIENCE_S = 60.0
"""A scene loads in seconds where nothing else runs."""


class Client:
    """Everything that talks to the robot, and what it said."""

    def __init__(self, context):
        self.node = rclpy.create_node('client', context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.heard, self.order = {}, []
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for topic, kind, qos in (
            ('agentview/image_raw', Image, qos_profile_sensor_data),
            ('wrist/image_raw', Image, qos_profile_sensor_data),
            ('ee_pose', PoseStamped, qos_profile_sensor_data),
            ('joint_states', JointState, qos_profile_sensor_data),
            ('instruction', String, 1),
            ('/diagnostics', DiagnosticArray, 1),
            ('sim_robot/episode', DiagnosticArray, latched),
        ):
            self.listen(topic, kind, qos)
        self.twist = self.node.create_publisher(TwistStamped, 'ee_twist', 1)
        self.gripper = self.node.create_publisher(Float64, 'gripper', 1)
        self.start = self.node.create_client(Trigger, 'sim_robot/start_episode')
        self.parameters = AsyncParameterClient(self.node, 'sim_robot')

    def listen(self, topic, kind, qos):
        self.heard[topic] = []

        def hear(message):
            self.heard[topic].append(message)
            self.order.append((topic, message))

        self.node.create_subscription(kind, topic, hear, qos)

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

    def turn(self):
        """Return the quaternion of the hand, x y z w."""
        q = self.next_of('ee_pose').pose.orientation
        return np.array([q.x, q.y, q.z, q.w])

    def send_twist(self, linear, frame='world', angular_z=0.0):
        message = TwistStamped()
        message.header.frame_id = frame
        message.twist.linear.x, message.twist.linear.y, message.twist.linear.z = linear
        message.twist.angular.z = angular_z
        self.twist.publish(message)

    def drive(self, linear, states, frame='world', angular_z=0.0):
        """Send a twist with every state that comes in."""
        for _ in range(states):
            self.send_twist(linear, frame, angular_z)
            self.next_of('ee_pose')

    def begin(self, **values):
        """Begin an episode; return its event's values."""
        assert set(self.set(**values)) == {''}
        answer = self.call(self.start.call_async(Trigger.Request()))
        assert answer.success, answer.message
        self.spin_until(lambda: self.events()[-1:] and self.events()[-1][0] == 'started')
        return self.events()[-1][1]

    def events(self):
        return [
            (status.message, {pair.key: pair.value for pair in status.values})
            for message in self.heard['sim_robot/episode']
            for status in message.status
        ]


@pytest.fixture(scope='module')
def robot(tmp_path_factory):
    log = tmp_path_factory.mktemp('robot') / 'sim_robot.log'
    child = Child('sim_robot', 'safe_vla_ros.ros.sim_robot', [], log=log, environment=ENVIRONMENT)
    with child:
        yield child
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
    client.spin_until(lambda: client.heard['agentview/image_raw'] and client.heard['ee_pose'])
    yield client
    client.executor.shutdown()
    client.node.destroy_node()
    rclpy.shutdown(context=context)


def wait_for_log(robot, client, text):
    client.spin_until(lambda: text in robot.log.read_text())


def stamp_s(message):
    return message.header.stamp.sec + message.header.stamp.nanosec * 1e-9


def test_images_poses_and_joints_arrive_with_capture_stamps(client):
    pictures = client.next_of('agentview/image_raw', 3), client.next_of('wrist/image_raw')
    for picture, name in zip(pictures, ('agentview', 'wrist'), strict=True):
        assert (picture.height, picture.width, picture.step) == (256, 256, 768)
        assert (picture.encoding, len(picture.data)) == ('rgb8', 256 * 768)
        assert picture.header.frame_id == f'{name}_optical_frame'
        assert np.std(np.asarray(picture.data)) > 10
        assert 0.0 < time.time() - stamp_s(picture) < 2.0
    joints = client.next_of('joint_states')
    assert joints.name[-2:] == ['panda_finger_joint1', 'panda_finger_joint2']
    assert len(joints.position) == len(joints.name) == 9
    assert client.next_of('ee_pose').header.frame_id == 'world'


def test_an_episode_tells_its_instruction_when_pictures_of_its_scene_are_out(client):
    values = client.begin(task='libero_spatial/0/other', seed=5, init_state=4)
    assert values['task'] == 'libero_spatial/0/other'
    assert (values['seed'], values['init_state']) == ('5', '4')
    sentence = 'pick up the black bowl next to the ramekin and place it on the plate'
    assert values['instruction'] == sentence
    client.spin_until(lambda: client.heard['instruction'])
    assert client.heard['instruction'][-1].data == sentence
    started = client.heard['sim_robot/episode'][-1]
    before = client.order[: next(i for i, (t, _) in enumerate(client.order) if t == 'instruction')]
    for camera in ('agentview', 'wrist'):
        assert any(
            topic == f'{camera}/image_raw' and stamp_s(message) >= stamp_s(started)
            for topic, message in before
        )


def test_the_end_of_an_episode_takes_the_instruction_back_until_the_next_one(client):
    client.begin(task='libero_spatial/0', seed=1, init_state=-1)
    client.spin_until(lambda: client.heard['instruction'][-1].data)
    heard = len(client.heard['instruction'])
    values = client.begin(task='libero_spatial/0', seed=2)
    assert values['init_state'] == 'none'
    assert [kind for kind, _ in client.events()][-3:] == ['started', 'aborted', 'started']
    client.spin_until(lambda: len(client.heard['instruction']) >= heard + 2)
    texts = [message.data for message in client.heard['instruction'][heard:]]
    assert texts[0] == ''
    assert 'between the plate and the ramekin' in texts[1]


def test_unknown_tasks_and_states_and_fixed_parameters_are_refused_with_a_sentence(client):
    task, state, rate = client.set(task='reach', init_state=50, camera_rate_hz=5.0)
    assert task == (
        "task: unknown task 'reach'; "
        'allowed: libero_spatial, libero_object, libero_goal, libero_10, then /0 to /9'
    )
    assert 'init_state' in state
    assert 'read-only' in rate
    (other,) = client.set(task='libero_goal/0/other')
    assert 'only libero_spatial has another bowl to ask for' in other


def test_the_arm_follows_a_twist_and_stops_when_the_commands_stop(client):
    start_m, start = client.position(), client.turn()
    client.drive((0.0, 0.2, 0.0), 25, angular_z=0.5)
    driven_m = client.position()
    assert (driven_m - start_m)[1] > 0.03
    # cos of half the angle between the two: it has turned by more than 0.1 rad
    assert abs(start @ client.turn()) < np.cos(0.05)
    # The twist still holds for 0.1 s, and then the hand swings for up to 15 mm.
    client.next_of('ee_pose', 80)
    stopped_m = client.position()
    client.next_of('ee_pose', 20)
    assert np.linalg.norm(stopped_m - driven_m) < 0.2 * 0.25 + 0.03
    assert np.linalg.norm(client.position() - stopped_m) < 0.005


@pytest.mark.parametrize(
    ('linear', 'frame', 'complaint'),
    [
        ((0.0, -0.3, 0.0), 'camera', "its frame_id is 'camera', this robot takes 'world' only"),
        ((0.0, -0.3, math.nan), 'world', 'it must hold finite numbers, got'),
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
        return np.ptp(joints.position[-2:])

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


def test_another_suite_loads_while_the_robot_goes_on(client):
    before = len(client.heard['ee_pose'])
    start_s = time.monotonic()
    values = client.begin(task='libero_object/1', seed=3)
    load_s = time.monotonic() - start_s
    assert values['instruction'].startswith('pick up the ')
    # More than half of the states of that time came, while a whole scene was loaded.
    assert len(client.heard['ee_pose']) - before > 0.5 * 40 * load_s
    client.spin_until(lambda: client.heard['instruction'][-1].data == values['instruction'])


def following(**changes):
    values = {'kind': 'success', 'stamp_s': 1.0, 'episode': 1, 'instruction': '', 'elapsed_s': 1.0}
    event = EpisodeEvent(**{**values, 'seed': 7, 'init_state': None, **changes})
    return {parameter.name: parameter.value for parameter in _following(event)}


def test_autoplay_goes_on_with_the_other_bowl_and_then_with_other_scenes():
    assert following(task='libero_spatial/0') == {'task': 'libero_spatial/0/other', 'seed': 8}
    assert following(task=TASKS[-1])['task'] == TASKS[0]
    assert following(task='libero_goal/9')['task'] == 'libero_goal/0'


def test_autoplay_walks_through_the_initial_states_if_it_began_with_one():
    assert following(task='libero_spatial/0', init_state=49, seed=0) == {
        'task': 'libero_spatial/0/other',
        'seed': 0,
        'init_state': 0,
    }


def start_robot(tmp_path, *arguments):
    return Child(
        'sim_robot', 'safe_vla_ros.ros.sim_robot', ['--ros-args', *arguments],
        log=tmp_path / 'log', environment=ENVIRONMENT,
    )  # fmt: skip


def leave(child, number):
    os.kill(child.pid, number)
    left_s = time.monotonic()
    assert child.wait(PATIENCE_S) == 0
    assert time.monotonic() - left_s < 2.0
    assert 'Traceback' not in child.log.read_text()


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_it_leaves_within_two_seconds_while_its_first_scene_loads(tmp_path, number):
    with start_robot(tmp_path, '-r', '__ns:=/leaving') as child:
        deadline_s = time.monotonic() + PATIENCE_S
        while 'loading the scene' not in child.log.read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        leave(child, number)
        assert 'ready' not in child.log.read_text()


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (
            ('-p', 'camera_rate_hz:=500.0'),
            'camera_rate_hz must be 1 to 100 Hz (Invalid parameter value (500.0)',
        ),
        (('-p', 'camera_rate_hz:=5'), 'write it as 20.0'),
        (('-p', 'real_time_factor:=0.5'), 'real_time_factor = 0.5 needs publish_clock: true'),
        (('-p', 'task:=fly'), "task: unknown task 'fly'; allowed: libero_spatial,"),
    ],
)
def test_a_bad_parameter_at_start_ends_the_node_with_a_sentence(tmp_path, arguments, sentence):
    with start_robot(tmp_path, *arguments) as child:
        assert child.wait(PATIENCE_S) == 1
    assert sentence in child.last_lines()


def test_it_leaves_within_two_seconds_during_a_change_of_scene(robot, client):
    """The last one that uses the robot."""
    assert client.set(task='libero_goal/0') == ['']
    client.start.call_async(Trigger.Request())
    wait_for_log(robot, client, 'loading the scene of libero_goal/0')
    leave(robot, signal.SIGTERM)
