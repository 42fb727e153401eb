"""The simulated robot and the policy node, as `demo.launch.py` starts them: episode by episode."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from node_bench import DOMAIN, Robot

from safe_vla_ros.demo.processes import Child
from safe_vla_ros.sim.robot_file import robot_file

ENVIRONMENT = {
    'ROS_DOMAIN_ID': str(DOMAIN),
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    'OMP_NUM_THREADS': '1',
}
NAMESPACE = '/play'
POLICY = f'{NAMESPACE}/pruned_policy'
PATIENCE_S = 60.0
"""A scene and a policy load at the same time."""


def child(tmp_path, name, *arguments):
    return Child(
        name, f'safe_vla_ros.ros.{name}', ['--ros-args', '-r', f'__ns:={NAMESPACE}', *arguments],
        log=tmp_path / name, environment=ENVIRONMENT,
    )  # fmt: skip


@pytest.fixture
def robot(tmp_path):
    return child(
        tmp_path, 'sim_robot', '-p', 'autoplay:=true', '-p', 'episode_duration_s:=1.5',
        '-p', 'task:=libero_spatial/0/other',
        '-r', 'ee_twist:=pruned_policy/ee_twist', '-r', 'gripper:=pruned_policy/gripper',
    )  # fmt: skip


@pytest.fixture
def policy(tmp_path):
    # A busy machine may hold up a picture in the middle of an episode, which is not the point here.
    return child(
        tmp_path, 'pruned_policy', '--params-file', str(robot_file()),
        '-p', 'observation_timeout_s:=2.0',
    )  # fmt: skip


@pytest.fixture
def listener():
    listener = Robot(POLICY)
    listener.listen('episodes', DiagnosticArray, f'{NAMESPACE}/sim_robot/episode', 10)
    yield listener
    listener.close()


def wait(done, what):
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s, f'waited in vain for {what}'
        time.sleep(0.02)


def test_every_episode_is_played_and_no_change_of_scene_is_an_error(robot, policy, listener):
    def events():
        return [message.status[0].message for message in list(listener.heard['episodes'])]

    def said(text):
        return lambda: text in robot.log.read_text()

    with ExitStack() as stack:
        stack.enter_context(robot)
        wait(said('nobody commands the robot on /play/pruned_policy/ee_twist'), 'a complaint')
        stack.enter_context(policy)
        wait(lambda: listener.node.count_publishers(f'{POLICY}/state') > 0, 'the policy node')
        assert listener.transition('configure')
        wait(said('/play/pruned_policy is not active yet'), 'a complaint')
        assert events() == []
        assert listener.transition('activate')
        # The second episode has another scene, which loads for seconds.
        wait(lambda: events().count('timeout') + events().count('success') == 2, 'two episodes')
        assert said('loading the scene of libero_spatial/2')()
        for one in (robot, policy):
            one.check()
    states = [status.message.partition(':')[0] for status in listener.heard['state']]
    told = states[states.index('running') :]
    assert told.count('running') >= 2
    assert 'stale' not in states
    assert 'failed' not in states
    first_inference = listener.heard['inference'][0].header.stamp
    assert first_inference.sec >= listener.heard['episodes'][0].header.stamp.sec
    for one in (robot, policy):
        assert one.returncode == 0, one.last_lines()
        assert '[ERROR]' not in one.log.read_text()
