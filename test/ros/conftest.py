"""A node with a fake policy in this process, and a robot that talks to it over DDS."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import pytest
from node_bench import Robot, open_context
from node_fakes import FakePolicies
from rclpy.parameter import Parameter

from safe_vla_ros.ros.node import PrunedPolicy
from safe_vla_ros.ros.spinner import Spinner

COUNTER = itertools.count()
PATIENT = {
    'observation_timeout_s': 5.0,
    'starvation_grace_s': 1.0,
    'max_camera_skew_s': 1.0,
    'max_chunk_age_s': 30.0,
    'halt_zero_duration_s': 0.06,
}
"""Tests of something else must not halt where the machine is busy."""


class Bench:
    """A node under test and its robot."""

    def __init__(self, robot, policies, node):
        self.robot, self.policies, self.node = robot, policies, node
        robot.ticks = lambda: node._configured.timing.ticks if node._configured else 0
        robot.is_ticking = lambda: node._configured is not None and node._configured._active

    @property
    def policy(self):
        return self.policies.policy

    def rest(self):
        """Go back to unconfigured, with nobody feeding."""
        if self.policy is not None:
            self.policy.gate.set()
        self.robot.stop_feeding()
        state = self.robot.lifecycle_state()
        for transition in {'active': ['deactivate', 'cleanup'], 'inactive': ['cleanup']}.get(
            state, []
        ):
            assert self.robot.transition(transition)
        self.robot.set_atomically(**PATIENT)
        self.policies.forget()
        self.robot.forget()


@contextmanager
def running_node(namespace=None, policies=None, **overrides):
    """Run a node with parameter overrides; dots are written as double underscores."""
    overrides = {**PATIENT, **{k.replace('__', '.'): v for k, v in overrides.items()}}
    context = open_context()
    policies = policies or FakePolicies()
    node = PrunedPolicy(
        policies=policies,
        context=context,
        namespace=namespace,
        parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
    )
    spinner = Spinner(node, 'node')
    robot = Robot(
        node.get_fully_qualified_name(), sim_time=bool(overrides.get('use_sim_time', False))
    )
    try:
        yield Bench(robot, policies, node)
    finally:
        if getattr(policies, 'policy', None) is not None:
            policies.policy.gate.set()
        robot.close()
        node.leave()
        spinner.end()
        node.destroy_node()
        context.try_shutdown()


@pytest.fixture(scope='session')
def shared_node():
    with running_node() as bench:
        yield bench


@pytest.fixture
def bench(shared_node):
    """A node with default parameters, unconfigured; tests must not leave parameters changed."""
    yield shared_node
    shared_node.rest()


@pytest.fixture
def robot(bench):
    return bench.robot


@pytest.fixture
def start_node():
    """Return what runs a node with overrides of its own, beside the shared one."""

    def start(**overrides):
        return running_node(f'robot{next(COUNTER)}', **overrides)

    return start
