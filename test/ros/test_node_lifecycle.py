"""The life cycle: every failure says why, and every end of a motion halts first."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from node_bench import moves, seconds
from node_fakes import SPEC
from rclpy.clock_type import ClockType

from safe_vla_ros.errors import CheckpointError, ObservationError


def fail_loading(policies):
    policies.loading_fault = CheckpointError('model.safetensors is missing')


def fail_loading_unexpectedly(policies):
    policies.loading_fault = MemoryError('no memory')


def fail_warm_up(policies):
    policies.first_fault = ObservationError('proprioception has 4 numbers, the policy takes 8')


def say_too_little(policies):
    policies.spec = dataclasses.replace(SPEC, linear_scale_m=None, rotation=None)


FAULTS = [
    (fail_loading, 'configure failed: model.safetensors is missing'),
    (fail_loading_unexpectedly, 'configure failed: MemoryError: no memory'),
    (fail_warm_up, 'configure failed: proprioception has 4 numbers, the policy takes 8'),
    (say_too_little, 'action.linear_scale_m (above 0 m); action.rotation (axis_angle, euler_xyz)'),
]


@pytest.mark.parametrize(('fault', 'sentence'), FAULTS)
def test_failing_configure_says_why_and_may_be_tried_again(bench, robot, fault, sentence):
    fault(bench.policies)
    assert not robot.transition('configure')
    robot.wait_log(sentence)
    assert robot.lifecycle_state() == 'unconfigured'
    bench.policies.forget()
    assert robot.transition('configure')


def test_absent_policy_fails_configure(start_node):
    with start_node(policy='absent') as bench:
        assert not bench.robot.transition('configure')
        bench.robot.wait_log("policy 'absent' is neither a directory nor a bundled policy")


def test_inputs_are_subscribed_between_configure_and_cleanup(robot):
    assert robot.images['front'].get_subscription_count() == 0
    assert robot.transition('configure')
    robot.wait_matched(robot.images['front'])
    assert robot.transition('cleanup')
    robot.wait(lambda: robot.images['front'].get_subscription_count() == 0, 'the end of it')
    assert robot.transition('configure')
    robot.wait_matched(robot.images['front'])


def test_second_activate_is_refused_and_harmless(robot):
    robot.start_moving()
    assert not robot.transition('activate')
    assert robot.lifecycle_state() == 'active'
    robot.next('twist', moves)


def test_deactivate_ends_with_a_zero_and_silence(robot):
    robot.start_moving()
    robot.wait_state('running')
    assert robot.transition('deactivate')
    assert not moves(robot.heard['twist'][-1])
    robot.wait_state('waiting', 'not active')
    robot.expect_silence()


def test_next_activation_begins_an_episode_from_a_fresh_observation(bench, robot):
    robot.start_moving()
    assert robot.transition('deactivate')
    seen = len(bench.policy.observations)
    robot.stop_feeding()
    assert robot.transition('activate')
    robot.expect_silence()
    assert len(bench.policy.observations) == seen
    robot.start_feeding()
    robot.next('twist', moves)


@pytest.mark.parametrize('how', ['shutdown', 'deactivate'])
def test_moving_arm_decelerates_before_the_publishers_fall_silent(start_node, how):
    with start_node(max_linear_accel=0.2) as bench:
        robot = bench.robot
        robot.start_moving()
        robot.next('twist', lambda m: m.twist.linear.x > 0.0999)
        before = len(robot.heard['twist'])
        began_s = seconds(robot.heard['twist'][-1].header.stamp)
        transition = {
            'shutdown': Transition.TRANSITION_ACTIVE_SHUTDOWN,
            'deactivate': Transition.TRANSITION_DEACTIVATE,
        }[how]
        request = ChangeState.Request(transition=Transition(id=transition))
        assert robot.call(ChangeState, 'change_state', request).success
        robot.expect_stop(before)
        twists = robot.heard['twist'][before:]
        speeds = [m.twist.linear.x for m in twists]
        # Never faster than before; 1e-9 m/s is rounding.
        assert all(now <= before + 1e-9 for before, now in pairwise(speeds))
        ramp_s = seconds(twists[speeds.index(0.0)].header.stamp) - began_s
        assert ramp_s > 0.9 * 0.09 / 0.2


def test_error_in_a_callback_is_logged_and_the_node_lives_on(bench, robot):
    robot.start_moving()
    configured = bench.node._configured
    tick = configured.runtime.tick

    def break_once():
        configured.runtime.tick = tick
        raise ZeroDivisionError('in a tick')

    configured.runtime.tick = break_once
    robot.wait_log('ZeroDivisionError: in a tick')
    robot.next('twist', moves)


def test_control_ticks_do_not_hang_on_the_clock_of_stamps(bench, robot):
    robot.start_moving()
    clocks = {timer.clock.clock_type for timer in bench.node._configured._control._timers}
    assert clocks == {ClockType.STEADY_TIME}
