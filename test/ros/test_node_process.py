"""The executable as a process of its own: signals while the arm moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from node_bench import DOMAIN, PATIENCE_S, Robot, moves, seconds
from rosgraph_msgs.msg import Clock

HALT_S = 2.0
LEAVING_S = 1.5
HERE = Path(__file__).parent


class Process:
    """The node with a fake policy, started from the command line."""

    def __init__(self, *parameters):
        self.child = subprocess.Popen(
            [sys.executable, HERE / 'fake_node.py', '--ros-args', *parameters],
            env={
                **os.environ,
                'ROS_DOMAIN_ID': str(DOMAIN),
                'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()

    def ask_to_end(self, number):
        self.child.send_signal(number)
        return time.monotonic()

    def wait(self):
        return self.child.wait(PATIENCE_S)


@pytest.fixture
def robot():
    robot = Robot('/signalled/pruned_policy')
    yield robot
    robot.close()


def parameters(**values):
    items = [f'{name}:={value}' for name, value in values.items()]
    return ['-r', '__ns:=/signalled', *(part for item in items for part in ('-p', item))]


PATIENT = {'observation_timeout_s': '5.0', 'starvation_grace_s': '1.0'}


def says_halting(message):
    return message.name == 'signalled.pruned_policy' and message.msg.startswith('state: halting')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_in_motion_halts_first_and_ends_with_success(robot, number):
    with Process(*parameters(max_linear_accel='0.2', **PATIENT)) as process:
        robot.start_moving()
        robot.next('twist', lambda m: m.twist.linear.x > 0.09)
        process.ask_to_end(number)
        assert process.wait() == 0
        # It says so after the first command of the halt; the arm sped up until then.
        told_s = seconds(robot.next('log', says_halting, after=0).stamp)
        twists = robot.heard['twist']
        first = sum(seconds(m.header.stamp) < told_s for m in twists) - 1
        speeds = [m.twist.linear.x for m in twists[first:]]
        assert speeds[0] > 0.05
        assert speeds[-1] == 0.0
        # Never faster than before; 1e-9 m/s is rounding.
        assert all(now <= before + 1e-9 for before, now in pairwise(speeds))


def test_signal_in_a_long_inference_does_not_wait_for_it(robot):
    with Process(*parameters(**PATIENT)) as process:
        robot.start_moving()
        robot.say('move slowly')
        robot.next('reset', lambda m: m.status[0].message == 'instruction')
        process.ask_to_end(signal.SIGTERM)
        assert process.wait() == 0
        assert not moves(robot.heard['twist'][-1])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signal_while_a_policy_loads_ends_the_process_at_once(robot, number):
    with Process(*parameters(policy='endless')) as process:
        robot.begin_transition('configure')
        robot.wait_state('loading', 'of the weights')
        asked_s = process.ask_to_end(number)
        assert process.wait() == 0
        assert time.monotonic() - asked_s < LEAVING_S


def test_signal_where_clock_stands_still_still_ends_in_time():
    robot = Robot('/signalled/pruned_policy', sim_time=True)
    clock = robot.node.create_publisher(Clock, '/clock', 10)
    now_s = 100.0

    def step():
        nonlocal now_s
        now_s += 0.01
        message = Clock()
        message.clock.sec, message.clock.nanosec = int(now_s), int(now_s % 1 * 1e9)
        clock.publish(message)

    try:
        with Process(*parameters(use_sim_time='true', **PATIENT)) as process:
            stop_clock = robot.every(0.01, step)
            robot.start_moving()
            stop_clock()
            process.ask_to_end(signal.SIGTERM)
            assert process.wait() == 0
            assert not moves(robot.heard['twist'][-1])
    finally:
        robot.close()
