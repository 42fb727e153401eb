"""A node in a process of its own, a robot that feeds it, and a recorder of every command."""

from __future__ import annotations

import array
import itertools
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import cv2
import node_bench
import numpy as np
from command_rules import CommandRecorder, Rules
from geometry_msgs.msg import PoseStamped, TwistStamped
from node_bench import BEST_EFFORT, CAMERAS, RELIABLE, Robot
from node_fakes import SPEED_M_S
from node_process import Process, in_namespace
from rclpy.duration import Duration
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage
from shifted_clock import ShiftedClock
from simulated_clock import SimulatedClock

from safe_vla_ros.runtime.parameters import PARAMETERS

SHIFTED_NODE = Path(node_bench.__file__).parent / 'shifted_node.py'
COUNTER = itertools.count()
FRAME, SECOND_FRAME = 'base_link', 'second_base_link'
LIMITS = {
    'max_linear_speed': 0.25,
    'max_angular_speed': 0.8,
    'max_linear_accel': 0.5,
    'max_angular_accel': 3.0,
}
PATIENT = {
    'observation_timeout_s': 5.0,
    'starvation_grace_s': 1.0,
    'max_camera_skew_s': 1.0,
    'max_chunk_age_s': 30.0,
    'halt_zero_duration_s': 0.1,
    **LIMITS,
}
"""A row must halt for its own fault, not for a busy machine."""

HOLD, HOLD_S = 'robot_command_timeout_s', 0.1
BUSY = {}
"""What rows in which motion goes on are given besides: a busy machine must not halt them."""
if HOLD in PARAMETERS:
    PATIENT[HOLD], BUSY[HOLD] = HOLD_S, 0.5

PNG = cv2.imencode('.png', np.full((16, 16, 3), 90, np.uint8))[1].tobytes()

SILENCE_S = 0.3
"""So long no command may come to call it silence: many control periods, and then an answer."""


class Situation(Enum):
    """What the node is doing when the fault comes."""

    UNCONFIGURED = 'unconfigured'
    LOADING = 'loading'
    INACTIVE = 'inactive'
    WAITING = 'waiting'
    RUNNING = 'running'
    PAUSED = 'paused'
    FAILED = 'failed'
    LONG_INFERENCE = 'in a long inference'

    @property
    def moving(self):
        return self in {Situation.RUNNING, Situation.LONG_INFERENCE}


@dataclass(frozen=True)
class Mark:
    """A place in time: how many commands and states had been heard."""

    commands: int
    states: int


class PoseForBoth:
    """A publisher of poses that gives each of two nodes its own frame."""

    def __init__(self, first, second):
        self.topic_name = first.topic_name
        self.get_subscription_count = first.get_subscription_count
        self._first, self._second = first, second

    def publish(self, message):
        self._first.publish(message)
        message.header.frame_id = SECOND_FRAME
        self._second.publish(message)


class Stage:
    """Everything that one row needs; rows with the same parameters may use it one after another.

    Attributes:
        robot: Feeds the node and hears what it says.
        recorder: Every command of the node since ``prepare``.
        second: Every command of a second node, where one was started.
        clock: The publisher of /clock.
        system_clock: The node's system time; stamps of the robot follow it.
        commands: Twists of the node since ``prepare``, as messages.
        fault_s: When the fault came, in real time.
    """

    def __init__(self, parameters, *, simulated=False):
        self.parameters = parameters
        self.simulated = simulated
        self.namespace = f'/fault{next(COUNTER)}'
        self._folder = tempfile.TemporaryDirectory()
        self._offset_file = Path(self._folder.name) / 'offset'
        self.system_clock = ShiftedClock(self._offset_file)
        self.second_process = None
        self.process = self._start()
        self.robot = Robot(f'{self.namespace}/pruned_policy', sim_time=simulated)
        self.clock = SimulatedClock(self.robot)
        if parameters.get('image_transport') == 'compressed':
            self.robot.images = {camera: self._compressed(camera) for camera in CAMERAS}
        self._record({})
        self.begin_fault()
        topic = f'{self.namespace}/pruned_policy/ee_twist'
        self.robot.node.create_subscription(TwistStamped, topic, self._hear, RELIABLE)

    def close(self):
        self.clock.stop()
        self.robot.close()
        self.end_second()
        self.process.__exit__()
        self._folder.cleanup()

    # Before the fault

    def prepare(self, settings, rate):
        """Begin a row with an unconfigured node.

        Args:
            settings: Parameters of this row alone.
            rate: Rate of simulated time; 0 where there is no /clock.
        """
        self._record(settings)
        if rate:
            self.clock.run(rate)
        answer = self.robot.set_atomically(**{**PATIENT, **settings})
        assert answer.successful, answer.reason
        self.robot.change_stamp = self._shifted_stamp
        if self.parameters.get('image_transport') == 'compressed':
            self.robot.change_image = dict.fromkeys(CAMERAS, compressed)

    def bring_to(self, situation):
        robot = self.robot
        if situation is Situation.UNCONFIGURED:
            assert robot.lifecycle_state() == 'unconfigured'
        elif situation is Situation.LOADING:
            robot.begin_transition('configure')
            robot.wait_state('loading', 'of the weights', after=0)
        else:
            assert self.transition('configure')
        if situation in {Situation.UNCONFIGURED, Situation.LOADING, Situation.INACTIVE}:
            return
        assert self.transition('activate')
        robot.wait_matched(*robot.images.values(), robot.pose, robot.joints)
        robot.start_feeding()
        if situation is Situation.WAITING:
            robot.wait_state('waiting', 'no instruction', after=0)
            return
        robot.say('go')
        self.wait_full_speed()
        if situation is Situation.PAUSED:
            assert robot.pause(True).success
            robot.wait_state('paused')
            self.wait_silence(self.mark())
        elif situation is Situation.FAILED:
            robot.say('fault')
            robot.wait_state('failed', 'in a row', after=0)
            self.wait_silence(self.mark())
        elif situation is Situation.LONG_INFERENCE:
            robot.say('go slowly')
            robot.next('reset', lambda m: m.status[0].message == 'instruction')
            # The next inference has begun when the chunk of the last one is at full speed.
            self.wait_full_speed()

    def wait_full_speed(self):
        after = len(self.commands)
        self.robot.wait(lambda: any(map(at_full_speed, self.commands[after:])), 'full speed')

    def rest(self):
        """Undo what the row did; the node is unconfigured afterwards."""
        self.system_clock.set(0.0)
        robot = self.robot
        robot.stop_feeding()
        state = robot.lifecycle_state()
        for name in {'active': ['deactivate', 'cleanup'], 'inactive': ['cleanup']}.get(state, []):
            assert self.transition(name)
        robot.forget()

    # The fault

    def begin_fault(self):
        """Take it that the fault comes now, in real time."""
        self.fault_s = time.time()

    def since_fault(self, real_s):
        return real_s - self.fault_s

    def transition(self, name):
        """Ask for a transition; what is not active must be silent."""
        if name == 'activate':
            self.recorder.unhush(time.time())
        done = self.robot.transition(name)
        if done and name == 'deactivate':
            self.recorder.hush(time.time())
        return done

    def start_second(self):
        """Start a second node of the same name; its commands and its pose have another frame."""
        self.second_process = self._start(
            '-r', 'ee_pose:=second_ee_pose', command_frame=SECOND_FRAME
        )
        robot, topic = self.robot, f'{self.namespace}/second_ee_pose'
        robot.pose = PoseForBoth(
            robot.pose, robot.node.create_publisher(PoseStamped, topic, BEST_EFFORT)
        )
        topic = f'{robot.name}/state'
        robot.wait(lambda: robot.node.count_publishers(topic) == 2, 'a second node')

    def end_second(self):
        if self.second_process is not None:
            self.second_process.__exit__()
        self.second_process = None

    # What is seen

    def mark(self):
        """Return a place in time that later waits count from."""
        return Mark(len(self.commands), len(self.robot.heard['state']))

    def wait_state(self, name, reason, mark):
        return self.robot.wait_state(name, reason, after=mark.states)

    def wait_zero(self, mark):
        """Wait for the first zero after a mark; return when it was sent, real time."""
        found = self.robot.wait(
            lambda: next((c for c in self.recorder.heard[mark.commands :] if c.is_zero), None),
            'a zero',
        )
        return found.received_s

    def wait_silence(self, mark):
        """Wait until commands have ended, and hold the node to it until ``may_move``."""
        heard, since_s = mark.commands, time.monotonic()

        def silent():
            nonlocal heard, since_s
            if len(self.commands) != heard:
                heard, since_s = len(self.commands), time.monotonic()
            return time.monotonic() - since_s > SILENCE_S

        self.robot.wait(silent, 'silence')
        if self.process.child.poll() is None:
            self.robot.lifecycle_state()
        self.recorder.hush(time.time())

    def may_move(self):
        self.recorder.unhush(time.time())

    @contextmanager
    def doing(self, action, period_s):
        """Do something again and again in a thread."""
        end = self.robot.every(period_s, action)
        try:
            yield
        finally:
            end()

    def observe_for(self, duration_s):
        """Let the robot be commanded for a while."""
        until_s = time.monotonic() + duration_s
        self.robot.wait(lambda: time.monotonic() > until_s, 'time')

    def _start(self, *more, **parameters):
        given = {**PATIENT, **self.parameters, **parameters, 'use_sim_time': self.simulated}
        return Process(
            *in_namespace(self.namespace, **given),
            *more,
            program=(SHIFTED_NODE, self._offset_file),
        )

    def _record(self, settings):
        rules = Rules(
            **LIMITS,
            simulated=self.simulated,
            robot_command_timeout_s=settings.get(HOLD, HOLD_S),
        )
        self.recorder, self.second = CommandRecorder(rules), CommandRecorder(rules)
        self.commands = []

    def _hear(self, message, info):
        # The time of sending, by the true system clock: the robot's own delays do not count.
        sent_s = info['source_timestamp'] * 1e-9
        if message.header.frame_id == FRAME:
            self.recorder.take(message, sent_s)
            self.commands.append(message)
        elif message.header.frame_id == SECOND_FRAME:
            self.second.take(message, sent_s)

    def _shifted_stamp(self, stamp):
        by = Duration(seconds=self.system_clock.offset_s)
        return (Time.from_msg(stamp) + by).to_msg() if by.nanoseconds else stamp

    def _compressed(self, camera):
        topic = f'{self.namespace}/{camera}/image_raw/compressed'
        return self.robot.node.create_publisher(CompressedImage, topic, 1)


def at_full_speed(message):
    return message.twist.linear.x > SPEED_M_S * (1 - 1e-6)


def compressed(message):
    """Return an image as a small PNG of one colour."""
    return compressed_as(PNG)(message)


def compressed_as(data):
    """Return what replaces an image by compressed bytes."""

    def rewrite(message):
        image = CompressedImage(header=message.header, format='png')
        image.data = array.array('B', data)
        return image

    return rewrite
