"""The node on a pi0.5 checkpoint: published numbers over DDS, pruned and replayed."""

from __future__ import annotations

import array

import numpy as np
import pytest
import torch
from geometry_msgs.msg import PoseStamped
from node_bench import CAMERAS, header, seconds, values_of
from node_fakes import KeptChunks
from pi_checkpoints import GOLDEN, PROPRIO, read_inputs, unpack_pi
from sensor_msgs.msg import Image, JointState
from test_replay_parity import CAMERAS as REPLAYED_CAMERAS
from test_replay_parity import GRIPPER_JOINTS as REPLAYED_JOINTS
from test_replay_parity import SETS, compare_with_replay

from safe_vla_ros.policies.action_noise import NoisyEpisode

SET = 'pi05/set1'
STEP = 0
"""The published observation that the robot sees all the time."""
LINEAR_SCALE_M, ANGULAR_SCALE_RAD, PERIOD_S = 0.01, 0.1, 0.05
TOKENS, KEPT = 32, 8
JOINTS = [f'number_{i}' for i in range(3, 8)]
"""Joints that stand for the rest of the published state, so that it arrives to the bit."""


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return unpack_pi(SET, tmp_path_factory.mktemp('golden'))


def parameters(checkpoint, **changes):
    return {
        'policy': str(checkpoint),
        'device': 'cpu',
        'dtype': 'float32',
        'inference_threads': 1,
        'cameras': list(CAMERAS),
        'proprio.layout': ['ee_position', *(f'joint:{name}' for name in JOINTS)],
        'gripper.open_value': 1.0,
        'gripper.closed_value': 0.0,
        'action.linear_scale_m': LINEAR_SCALE_M,
        'action.angular_scale_rad': ANGULAR_SCALE_RAD,
        'action.rotation': 'axis_angle',
        'action.frame': 'base',
        'action_period_s': PERIOD_S,
        'execute_steps': 4,
        'pruning.layer': 2,
        'pruning.refresh_threshold': -1.0,
        # What the policy says comes out unchanged: no limit binds, nothing is blended.
        'blending': 'none',
        'max_linear_speed': 10.0,
        'max_linear_accel': 100.0,
        'max_angular_speed': 50.0,
        'max_angular_accel': 500.0,
        **changes,
    }


class PublishedNoise(KeptChunks):
    """The policies of this package, whose episodes draw the set's noise again and again."""

    def load(self, *arguments):
        policy = super().load(*arguments)
        noise = torch.from_numpy(read_inputs(SET)['noise'][STEP])
        policy.new_episode = lambda: NoisyEpisode(0, draw=noise.view)
        return policy


@pytest.fixture
def start(start_node, checkpoint):
    policies = PublishedNoise()

    def run(**changes):
        values = parameters(checkpoint, **changes)
        overrides = {name.replace('.', '__'): value for name, value in values.items()}
        return start_node(policies=policies, **overrides)

    run.chunks = policies.chunks
    return run


def drive(robot):
    """Let the robot send one published observation and its task, again and again."""
    inputs = read_inputs(SET)
    state = inputs['state'][STEP].astype(float)

    def image_of(pixels):
        def change(message):
            height, width, _ = pixels.shape
            changed = Image(height=height, width=width, step=3 * width, encoding='rgb8')
            changed.data = array.array('B', pixels.tobytes())
            return header(changed, message.header.stamp, message.header.frame_id)

        return change

    def pose(message):
        changed = PoseStamped()
        changed.pose.orientation.w = 1.0
        position = changed.pose.position
        position.x, position.y, position.z = state[:3].tolist()
        return header(changed, message.header.stamp, message.header.frame_id)

    def joints(message):
        changed = JointState(name=JOINTS, position=state[3:].tolist())
        return header(changed, message.header.stamp, '')

    assert robot.transition('configure')
    assert robot.transition('activate')
    robot.change_image = {
        camera: image_of(inputs[f'image_{name}'][STEP])
        for camera, name in zip(CAMERAS, ('image', 'image2'), strict=True)
    }
    robot.change_pose, robot.change_joints = pose, joints
    robot.move(str(inputs['tasks'][STEP]))


def velocities(message):
    linear, angular = message.twist.linear, message.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def test_a_published_observation_gives_the_published_actions_as_commands(start):
    with np.load(GOLDEN / SET / 'full.npz') as full:
        actions = full['actions'][STEP].astype(float)
    expected = actions[:, :6] * np.repeat((LINEAR_SCALE_M, ANGULAR_SCALE_RAD), 3) / PERIOD_S

    def plays_an_action(message):
        return np.abs(velocities(message) - expected).max(axis=1).min() < 1e-3

    with start(pruning__method='none') as bench:
        robot = bench.robot
        drive(robot)
        # All six velocities of an action at once.
        robot.next('twist', plays_an_action)
        stamp_s = seconds(robot.next('inference').header.stamp)
    chunk = start.chunks[round(stamp_s, 6)]
    np.testing.assert_allclose(chunk.translation_m, LINEAR_SCALE_M * actions[:, :3], atol=1e-6)
    np.testing.assert_allclose(chunk.rotation_rad, ANGULAR_SCALE_RAD * actions[:, 3:6], atol=5e-6)
    np.testing.assert_allclose(chunk.gripper, actions[:, 6].clip(0.0, 1.0), atol=5e-5)


def test_an_episode_prunes_after_its_key_step(start):
    with start() as bench:
        robot = bench.robot
        drive(robot)
        key = robot.next('inference', lambda m: m.status[1].message != 'pruned', after=0)
        pruned = robot.next('inference', lambda m: m.status[1].message == 'pruned', after=0)
        robot.next('ratio', lambda m: m.data == pytest.approx(1 - KEPT / TOKENS), after=0)
        assert robot.next('reset', after=0).status[0].message == 'episode_start'
    assert [int(values_of(m.status[1])['tokens_computed']) for m in (key, pruned)] == [TOKENS, KEPT]


def test_replay_gives_the_actions_of_the_live_node_with_the_noise_of_its_seed(
    tmp_path, start_node, checkpoint
):
    values = parameters(
        checkpoint,
        cameras=list(REPLAYED_CAMERAS),
        observation_timeout_s=10.0,
        starvation_grace_s=1.0,
        seed=7,
        **{
            'pruning.method': 'safe',
            'proprio.layout': list(PROPRIO),
            'gripper.joint_names': list(REPLAYED_JOINTS),
        },
    )

    rows = compare_with_replay(tmp_path, start_node, values)

    assert [row['key_step'] for row in rows] == [True] + [False] * (SETS - 1)
