"""The node on CogACT's golden checkpoint: published numbers, over DDS."""

from __future__ import annotations

import array

import numpy as np
import pytest
import torch
from cogact_checkpoints import SET, UNNORM_KEY, inputs, write_cogact
from node_bench import header, seconds, values_of
from node_fakes import KeptChunks
from sensor_msgs.msg import Image

from safe_vla_ros.policies.action_noise import NoisyEpisode

STEP = 2
"""The published observation that the robot sees all the time."""
SCALE, PERIOD_S = 0.05, 0.05
TOKENS, KEPT = 25, 10


class PublishedNoise(KeptChunks):
    """The policies of this package; every episode draws the published noise of one observation."""

    def load(self, *arguments):
        policy = super().load(*arguments)
        noise = torch.from_numpy(inputs()['noise'][STEP])
        policy.new_episode = lambda: NoisyEpisode(0, draw=noise.view)
        return policy


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_cogact(tmp_path_factory.mktemp('cogact') / 'policy')


@pytest.fixture
def start(start_node, checkpoint):
    """Run the node on the checkpoint with settings that change nothing of what the policy says."""
    policies = PublishedNoise()

    def run(**changes):
        values = {
            'policy': str(checkpoint),
            'unnorm_key': UNNORM_KEY,
            'device': 'cpu',
            'dtype': 'float32',
            'cameras': ['front'],
            'inference_threads': 1,
            'gripper__open_value': 1.0,
            'gripper__closed_value': 0.0,
            'action__linear_scale_m': SCALE,
            'action__angular_scale_rad': SCALE,
            'action__rotation': 'axis_angle',
            'action__frame': 'base',
            'action_period_s': PERIOD_S,
            'execute_steps': 8,
            'pruning__layer': 2,
            'pruning__keep_ratio': KEPT / TOKENS,
            'pruning__forecast_layers': [3],
            'pruning__refresh_threshold': -1.0,
            'blending': 'none',
            'max_linear_speed': 10.0,
            'max_linear_accel': 100.0,
            'max_angular_speed': 50.0,
            'max_angular_accel': 500.0,
            **changes,
        }
        return start_node(policies=policies, **values)

    run.chunks = policies.chunks
    return run


def drive(robot):
    """Let the robot send the published picture and ask for the published task."""
    pixels = inputs()['image'][STEP]
    height, width, _ = pixels.shape

    def picture(message):
        changed = Image(height=height, width=width, step=3 * width, encoding='rgb8')
        changed.data = array.array('B', pixels.tobytes())
        return header(changed, message.header.stamp, message.header.frame_id)

    assert robot.transition('configure')
    assert robot.transition('activate')
    robot.change_image = {**robot.change_image, 'front': picture}
    # Nobody listens to the wrist camera and the joints.
    robot.wait_matched(robot.images['front'])
    robot.start_feeding()
    robot.say(str(inputs()['tasks'][STEP]))


def test_a_published_observation_gives_the_published_actions_as_commands(start):
    with np.load(SET / 'full.npz') as full:
        actions = full['actions'][STEP]
    expected = actions[:, :6] * SCALE / PERIOD_S

    def plays_an_action(message):
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        return np.abs(twist - expected).max(axis=1).min() < 1e-3

    with start(pruning__method='none') as bench:
        robot = bench.robot
        drive(robot)
        robot.next('twist', plays_an_action)
        inference = robot.next('inference')
        gripper = robot.next('gripper', after=0).data
    chunk = start.chunks[round(seconds(inference.header.stamp), 6)]
    np.testing.assert_allclose(chunk.translation_m, SCALE * actions[:, :3], atol=1e-6)
    np.testing.assert_allclose(chunk.rotation_rad, SCALE * actions[:, 3:6], atol=1e-6)
    assert np.abs(chunk.gripper - gripper).min() < 1e-4
    values = values_of(inference.status[1])
    assert all(float(values[f'stage_gmacs/{stage}']) > 0 for stage in ('vision', 'head'))


def test_an_episode_prunes_after_its_key_step_and_averages_its_chunks(start):
    with start(blending='cogact_ensemble', execute_steps=1) as bench:
        robot = bench.robot
        drive(robot)
        key = robot.next('inference', lambda m: m.status[1].message != 'pruned', after=0)
        pruned = robot.next('inference', lambda m: m.status[1].message == 'pruned', after=0)
        assert robot.next('reset', after=0).status[0].message == 'episode_start'
        robot.next('twist', lambda m: m.twist.linear.x != 0.0)
    assert [int(values_of(m.status[1])['tokens_computed']) for m in (key, pruned)] == [TOKENS, KEPT]


def test_a_wrong_statistic_fails_configure_with_its_sentence(start, checkpoint, tmp_path):
    broken = write_cogact(tmp_path / 'broken')
    text = (broken / 'dataset_statistics.json').read_text()
    (broken / 'dataset_statistics.json').write_text(text.replace('"q99"', '"high"'))
    with start(policy=str(broken)) as bench:
        assert not bench.robot.transition('configure')
        bench.robot.wait_log("action has no key 'q99'")
