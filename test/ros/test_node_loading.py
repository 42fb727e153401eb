"""A node that loads a policy goes on answering, and says how far it is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import pairwise

import pytest
from node_bench import seconds

ANSWER_S = 0.5


@contextmanager
def loading(bench):
    """Begin to load a policy that takes its time; return what waits for the answer."""
    bench.policies.slow = True
    answer = bench.robot.begin_transition('configure')
    bench.robot.wait_state('loading', '0 % of the weights')
    try:
        yield answer
    finally:
        bench.policies.shares.put(None)
        bench.policies.gate.set()


def test_diagnostics_keep_their_rhythm_and_say_that_it_loads(bench, robot):
    with loading(bench) as answer:
        start = len(robot.heard['diagnostics'])
        robot.wait(lambda: len(robot.heard['diagnostics']) >= start + 4, 'four diagnostics')
        messages = robot.heard['diagnostics'][start:]
    assert answer()
    stamps_s = [seconds(message.header.stamp) for message in messages]
    assert all(0.5 < later - earlier < 1.5 for earlier, later in pairwise(stamps_s))
    for message in messages:
        assert {status.message for status in message.status} == {
            'loading: policy fake (fake): 0 % of the weights'
        }


def test_state_says_how_far_the_load_is(bench, robot):
    with loading(bench) as answer:
        end = robot.every(0.05, lambda: bench.policies.shares.put(0.379))
        robot.wait_state('loading', 'policy fake (fake): 37 % of the weights')
        end()
        bench.policies.shares.put(None)
        robot.wait_state('loading', 'policy fake (fake): trying it out')
    assert answer()
    robot.wait_state('waiting', 'not active')


def test_state_is_unconfigured_again_after_a_load_that_failed(bench, robot):
    bench.policies.loading_fault = OSError('no such disk')
    bench.policies.slow = True
    bench.policies.shares.put(None)
    assert not robot.transition('configure')
    robot.wait_state('waiting', 'not configured')


def test_every_other_service_answers_while_a_policy_loads(bench, robot):
    asked = {
        'get_state': lambda: robot.lifecycle_state() == 'configuring',
        'pause': lambda: answers(robot.pause(True), success=False, text='not configured'),
        'reset_episode': lambda: answers(robot.reset(), success=False, text='not configured'),
        'get_parameters': lambda: robot.get('control_rate_hz') == [50.0],
        'change_state': lambda: not robot.transition('activate'),
    }
    # Whatever is asked for the first time has to be found on the network first.
    for ask in asked.values():
        ask()
    with loading(bench) as answer:
        for name, ask in asked.items():
            start_s = time.monotonic()
            assert ask(), name
            assert time.monotonic() - start_s < ANSWER_S, name
    assert answer()
    assert robot.lifecycle_state() == 'inactive'


def answers(response, *, success, text):
    return response.success == success and response.message == text


@pytest.mark.parametrize('values', [{'pruning__keep_ratio': 0.5}, {'cameras': ['a', 'b']}])
def test_parameters_are_refused_while_a_policy_loads(bench, robot, values):
    with loading(bench) as answer:
        for result in (robot.set_one_by_one(**values)[0], robot.set_atomically(**values)):
            assert not result.successful
            assert 'cannot change while the policy loads' in result.reason
    assert answer()
    assert robot.get('pruning.keep_ratio', 'cameras') == [0.25, ['front', 'wrist']]
    robot.set_atomically(pruning__keep_ratio=0.5)
    assert robot.transition('activate')
    robot.move()
    assert bench.policy.prunings[-1].keep_ratio == 0.5
    robot.set_atomically(pruning__keep_ratio=0.25)


def test_node_that_leaves_ends_the_load(start_node):
    with start_node() as bench, loading(bench) as answer:
        bench.node.halt()
        bench.policies.shares.put(0.5)
        assert not answer()
        bench.robot.wait_log('configure failed: the node is shutting down')
