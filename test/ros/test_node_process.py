"""The executable as a process of its own: signals while the arm moves."""

from __future__ import annotations

import signal
import time
from itertools import pairwise

import pytest
from node_bench import Robot, moves, seconds
from node_process import Process, in_namespace
from simulated_clock import SimulatedClock

HALT_S = 2.0
LEAVING_S = 1.5


@pytest.fixture
def robot():
    robot = Robot('/signalled/pruned_policy')
    yield robot
    robot.close()


def parameters(**values):
    return in_namespace('/signalled', **values)


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
    clock = SimulatedClock(robot)
    try:
        with Process(*parameters(use_sim_time='true', **PATIENT)) as process:
            clock.run()
            robot.start_moving()
            clock.stop()
            process.ask_to_end(signal.SIGTERM)
            assert process.wait() == 0
            assert not moves(robot.heard['twist'][-1])
    finally:
        robot.close()
