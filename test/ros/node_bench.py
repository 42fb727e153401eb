"""A robot on the other side of DDS: what it sends, what it heard, and how to wait for it."""

from __future__ import annotations

import array
import os
import threading
import time

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Path
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import (
    DescribeParameters,
    GetParameters,
    SetParameters,
    SetParametersAtomically,
)
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float32, Float64, String
from std_srvs.srv import SetBool, Trigger

from safe_vla_ros.ros.domain import own_domain
from safe_vla_ros.ros.spinner import Spinner

DOMAIN = own_domain()
PATIENCE_S = 20.0
FEED_PERIOD_S = 0.04
SILENT_TICKS = 8
CAMERAS = ('front', 'wrist')
TRANSITIONS = {
    'configure': Transition.TRANSITION_CONFIGURE,
    'activate': Transition.TRANSITION_ACTIVATE,
    'deactivate': Transition.TRANSITION_DEACTIVATE,
    'cleanup': Transition.TRANSITION_CLEANUP,
}
LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=200)


def open_context():
    """Open a DDS participant of this test run."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    return context


class Robot:
    """Feeds the node and remembers what it says; every wait is for something that must come."""

    def __init__(self, name='/pruned_policy', compressed=False, sim_time=False):
        self.context = open_context()
        parameters = [Parameter('use_sim_time', value=sim_time)]
        self.node = rclpy.create_node('robot', context=self.context, parameter_overrides=parameters)
        self.name = name
        self.changed = threading.Condition()
        self.clients = {}
        self.heard = {}
        self.topics = {
            'twist': (TwistStamped, '/ee_twist', RELIABLE),
            'target': (PoseStamped, '/ee_target', RELIABLE),
            'gripper': (Float64, '/gripper', RELIABLE),
            'path': (Path, '/planned_path', RELIABLE),
            'ratio': (Float32, '/pruning_ratio', RELIABLE),
            'reset': (DiagnosticArray, '/subtask_reset', RELIABLE),
            'inference': (DiagnosticArray, '/inference', RELIABLE),
            'state': (DiagnosticStatus, '/state', LATCHED),
        }
        for key, (kind, topic, qos) in self.topics.items():
            self.listen(key, kind, f'{name}{topic}', qos)
        self.listen('diagnostics', DiagnosticArray, '/diagnostics', RELIABLE)
        self.listen('log', Log, '/rosout', LATCHED)
        namespace = name.rpartition('/')[0]
        self.images = {
            camera: self.node.create_publisher(
                Image, f'{namespace}/{camera}/image_raw', BEST_EFFORT
            )
            for camera in CAMERAS
        }
        self.pose = self.node.create_publisher(PoseStamped, f'{namespace}/ee_pose', BEST_EFFORT)
        self.joints = self.node.create_publisher(
            JointState, f'{namespace}/joint_states', BEST_EFFORT
        )
        self.instruction = self.node.create_publisher(String, f'{namespace}/instruction', 1)
        self.forget()
        self._end_feeding = do_nothing
        self.ticks = lambda: 0
        self.is_ticking = lambda: False
        self.spinner = Spinner(self.node, 'robot')

    def listen(self, key, kind, topic, qos):
        self.heard[key] = []

        def hear(message):
            with self.changed:
                self.heard[key].append(message)
                self.changed.notify_all()

        return self.node.create_subscription(kind, topic, hear, qos)

    def forget(self):
        """Forget what was heard and feed unchanged messages again."""
        with self.changed:
            for messages in self.heard.values():
                messages.clear()
        self.change_image = dict.fromkeys(CAMERAS, unchanged)
        self.change_pose = self.change_joints = self.change_stamp = unchanged
        self.silent = set()

    def close(self):
        self.stop_feeding()
        self.spinner.end()
        self.node.destroy_node()
        self.context.try_shutdown()

    # Waiting

    def wait(self, found, what):
        """Return the first true value of `found()`; fail when it does not come."""
        deadline_s = time.monotonic() + PATIENCE_S
        with self.changed:
            while True:
                value = found()
                if value:
                    return value
                left_s = deadline_s - time.monotonic()
                assert left_s > 0.0, f'{what} did not come; state: {self.states()[-3:]}'
                self.changed.wait(min(left_s, 0.02))

    def next(self, key, accept=lambda message: True, after=None):
        """Return the first message from now on, or after an index, that is accepted."""
        start = len(self.heard[key]) if after is None else after
        return self.wait(
            lambda: next((m for m in self.heard[key][start:] if accept(m)), None),
            f'a message of {key}',
        )

    def wait_state(self, name, reason='', after=None):
        """Wait until the node says that it is in a state; what it said last counts, too."""
        start = max(0, len(self.heard['state']) - 1) if after is None else after

        def matches(message):
            values = values_of(message)
            return values['state'] == name and reason in values['reason']

        return self.next('state', matches, after=start)

    def states(self):
        return [values_of(message)['state'] for message in self.heard['state']]

    def wait_log(self, text):
        return self.next('log', lambda message: text in message.msg, after=0)

    def task(self, name, accept=lambda status: True):
        """Return the status of a diagnostic task, from the next message that is accepted."""
        found = []
        label = self.name if self.name.count('/') > 1 else self.name[1:]

        def matches(message):
            found[:] = [s for s in message.status if s.name == f'{label}: {name}']
            return bool(found) and accept(found[0])

        self.next('diagnostics', matches)
        return found[0]

    # Services

    def call(self, kind, service, request):
        return self.begin(kind, service, request)()

    def begin(self, kind, service, request):
        """Ask something of the node; return what waits for the answer."""
        client = self.clients.get(service)
        if client is None:
            client = self.node.create_client(kind, f'{self.name}/{service}')
            self.clients[service] = client
        assert client.wait_for_service(PATIENCE_S), service
        future = client.call_async(request)
        future.add_done_callback(lambda _: self._notify())
        return lambda: self.wait(lambda: future.done() and future.result(), f'answer of {service}')

    def transition(self, name):
        return self.begin_transition(name)()

    def begin_transition(self, name):
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[name]))
        answer = self.begin(ChangeState, 'change_state', request)
        return lambda: answer().success

    def lifecycle_state(self):
        return self.call(GetState, 'get_state', GetState.Request()).current_state.label

    def pause(self, paused):
        return self.call(SetBool, 'pause', SetBool.Request(data=paused))

    def reset(self):
        return self.call(Trigger, 'reset_episode', Trigger.Request())

    def set_one_by_one(self, **values):
        request = SetParameters.Request(parameters=_messages(values))
        return self.call(SetParameters, 'set_parameters', request).results

    def set_atomically(self, **values):
        request = SetParametersAtomically.Request(parameters=_messages(values))
        return self.call(SetParametersAtomically, 'set_parameters_atomically', request).result

    def get(self, *names):
        response = self.call(GetParameters, 'get_parameters', GetParameters.Request(names=names))
        return [rclpy.parameter.parameter_value_to_python(value) for value in response.values]

    def describe(self, *names):
        request = DescribeParameters.Request(names=names)
        return self.call(DescribeParameters, 'describe_parameters', request).descriptors

    # Feeding

    def feed(self):
        """Send one complete observation, with what the test changed about it."""
        stamp = self.change_stamp(self.node.get_clock().now().to_msg())
        for camera in CAMERAS:
            if camera not in self.silent:
                self.images[camera].publish(self.change_image[camera](image(stamp, camera)))
        if 'pose' not in self.silent:
            self.pose.publish(self.change_pose(pose(stamp)))
        if 'joints' not in self.silent:
            self.joints.publish(self.change_joints(joints(stamp)))

    def every(self, period_s, action):
        """Do something again and again in a thread; return what ends it."""
        ending = threading.Event()

        def run():
            while not ending.wait(period_s):
                action()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()

        def end():
            ending.set()
            thread.join()

        return end

    def start_feeding(self):
        self._end_feeding = self.every(FEED_PERIOD_S, self.feed)

    def stop_feeding(self):
        self._end_feeding()
        self._end_feeding = do_nothing

    def say(self, text):
        self.wait_matched(self.instruction)
        self.instruction.publish(String(data=text))

    def wait_matched(self, *publishers):
        for publisher in publishers:
            self.wait(lambda p=publisher: p.get_subscription_count() > 0, publisher.topic_name)

    def start_moving(self, text='go'):
        """Configure, activate, feed and say something; return when the first motion came."""
        assert self.transition('configure')
        assert self.transition('activate')
        self.move(text)

    def move(self, text='go'):
        self.wait_matched(*self.images.values(), self.pose, self.joints)
        self.start_feeding()
        self.say(text)
        self.next('twist', moves)

    def _notify(self):
        with self.changed:
            self.changed.notify_all()

    # What must not come

    def expect_stop(self, after):
        """Wait for zeros and then silence among the twists after an index."""
        self.next('twist', lambda m: not moves(m), after=after)
        self.expect_silence()

    def expect_silence(self):
        """Prove that no command comes: control ticks go by, and an answer of the node arrives.

        Returns the number of commands heard so far.
        """
        heard, ticks = -1, 0

        def silent():
            nonlocal heard, ticks
            if len(self.heard['twist']) != heard:
                heard, ticks = len(self.heard['twist']), self.ticks()
            return self.ticks() - ticks >= SILENT_TICKS or not self.is_ticking()

        self.wait(silent, 'silence')
        self.lifecycle_state()
        assert len(self.heard['twist']) == heard, 'a command broke the silence'
        return heard


def do_nothing():
    pass


def seconds(stamp):
    return stamp.sec + stamp.nanosec * 1e-9


def unchanged(message):
    return message


def moves(message):
    return abs(message.twist.linear.x) > 1e-6


def values_of(status):
    return {item.key: item.value for item in status.values}


def header(message, stamp, frame_id):
    message.header.stamp = stamp
    message.header.frame_id = frame_id
    return message


def image(stamp, camera, height=24, width=32):
    message = Image(height=height, width=width, step=width * 3, encoding='rgb8')
    message.data = array.array('B', np.full(height * width * 3, 90, np.uint8).tobytes())
    return header(message, stamp, f'{camera}_optical_frame')


def pose(stamp, frame_id='base_link'):
    message = PoseStamped()
    message.pose.position.x = 0.4
    return header(message, stamp, frame_id)


def joints(stamp):
    return header(JointState(name=['finger'], position=[0.02]), stamp, '')


def _messages(values):
    return [
        value.to_parameter_msg()
        if isinstance(value, Parameter)
        else Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
        for name, value in values.items()
    ]
