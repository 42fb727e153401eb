"""The node on an OpenVLA-OFT checkpoint in the official format: published numbers, over DDS."""

from __future__ import annotations

import array

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from node_bench import CAMERAS, header, seconds, values_of
from node_fakes import KeptChunks
from openvla_checkpoints import GOLDEN, golden_parameters, unpack_golden
from sensor_msgs.msg import Image, JointState

from safe_vla_ros.policies.prompt import complete_prompt
from safe_vla_ros.runtime.geometry import quaternion_from_rotation_vector

SET = GOLDEN / 'set1'
STEP = 3
"""The published observation that the robot sees all the time."""
LINEAR_SCALE_M, ANGULAR_SCALE_RAD, PERIOD_S = 0.05, 0.5, 0.05
PIXELS, TOKENS, KEPT = 70, 50, 12


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    directory = unpack_golden('set1', tmp_path_factory.mktemp('golden'))
    # The published code reads the actions one position later than they were trained.
    (directory / 'policy.yaml').write_text('openvla:\n  action_slice: shifted\n')
    return directory


@pytest.fixture
def start(start_node, checkpoint, monkeypatch):
    """Run the node on the checkpoint; the published token ids stand for any instruction."""
    with np.load(SET / 'inputs.npz') as inputs:
        prompt = complete_prompt(inputs['input_ids'][0].tolist())
    monkeypatch.setattr('safe_vla_ros.policies.prompt.PromptEncoder.encode', lambda *_: prompt)
    policies = KeptChunks()

    def run(**changes):
        values = {
            **golden_parameters(checkpoint),
            'inference_threads': 1,
            'pruning.refresh_threshold': -1.0,
            # What the policy says comes out unchanged: no limit binds, nothing is blended.
            'blending': 'none',
            'max_linear_speed': 10.0,
            'max_linear_accel': 100.0,
            'max_angular_speed': 50.0,
            'max_angular_accel': 500.0,
            **changes,
        }
        overrides = {name.replace('.', '__'): value for name, value in values.items()}
        return start_node(policies=policies, **overrides)

    run.chunks = policies.chunks
    return run


def observe(robot):
    """Let the robot send one published observation, again and again."""
    with np.load(SET / 'inputs.npz') as inputs:
        images, proprio = inputs['images_u8'][STEP], inputs['proprio_raw'][STEP]

    def image_of(pixels):
        def change(message):
            changed = Image(height=PIXELS, width=PIXELS, step=3 * PIXELS, encoding='rgb8')
            changed.data = array.array('B', pixels.tobytes())
            return header(changed, message.header.stamp, message.header.frame_id)

        return change

    def pose(message):
        changed = PoseStamped()
        position, orientation = changed.pose.position, changed.pose.orientation
        position.x, position.y, position.z = proprio[:3].tolist()
        quaternion = quaternion_from_rotation_vector(proprio[3:6]).tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = quaternion
        return header(changed, message.header.stamp, message.header.frame_id)

    def joints(message):
        changed = JointState(name=['left', 'right'], position=proprio[6:].tolist())
        return header(changed, message.header.stamp, '')

    robot.change_image = {
        camera: image_of(pixels) for camera, pixels in zip(CAMERAS, images, strict=True)
    }
    robot.change_pose, robot.change_joints = pose, joints


def velocities(message):
    linear, angular = message.twist.linear, message.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def position_of(pose):
    return pose.position.x, pose.position.y, pose.position.z


def drive(robot):
    assert robot.transition('configure')
    assert robot.transition('activate')
    observe(robot)
    robot.move()


def test_a_published_observation_gives_the_published_actions_as_commands(start):
    with np.load(SET / 'vanilla.npz') as vanilla:
        actions = vanilla['actions'][STEP]
    per_unit = np.repeat((LINEAR_SCALE_M, ANGULAR_SCALE_RAD), 3) / PERIOD_S
    expected = actions[:, :6] * per_unit

    def plays_an_action(message):
        return np.abs(velocities(message) - expected).max(axis=1).min() < 1e-3

    def plans_the_last_actions(message):
        return len(message.poses) > 3

    with start(pruning__method='none') as bench:
        robot = bench.robot
        drive(robot)
        # All six velocities of an action at once.
        robot.next('twist', plays_an_action)
        path = robot.next('path', plans_the_last_actions)
        stamp_s = seconds(robot.next('inference').header.stamp)
        gripper = robot.next('gripper', after=0).data
    points = np.array([position_of(pose.pose) for pose in path.poses])
    moved_m = np.diff(points, axis=0)[-3:]
    np.testing.assert_allclose(moved_m, LINEAR_SCALE_M * actions[-3:, :3], atol=5e-6)
    chunk = start.chunks[round(stamp_s, 6)]
    np.testing.assert_allclose(chunk.translation_m, LINEAR_SCALE_M * actions[:, :3], atol=5e-6)
    np.testing.assert_allclose(chunk.rotation_rad, ANGULAR_SCALE_RAD * actions[:, 3:6], atol=5e-5)
    np.testing.assert_allclose(chunk.gripper, actions[:, 6].clip(0.0, 1.0), atol=5e-5)
    assert np.abs(chunk.gripper - gripper).min() < 1e-4


def test_an_episode_on_a_checkpoint_prunes_after_its_key_step(start):
    with start() as bench:
        robot = bench.robot
        drive(robot)
        key = robot.next('inference', lambda m: m.status[1].message != 'pruned', after=0)
        pruned = robot.next('inference', lambda m: m.status[1].message == 'pruned', after=0)
        robot.next('ratio', lambda m: m.data == pytest.approx(1 - KEPT / TOKENS), after=0)
        assert robot.next('reset', after=0).status[0].message == 'episode_start'
    assert [int(values_of(m.status[1])['tokens_computed']) for m in (key, pruned)] == [TOKENS, KEPT]
    values = values_of(pruned.status[1])
    assert [values[f'tokens_total/{camera}'] for camera in CAMERAS] == [str(TOKENS // 2)] * 2


def test_a_layout_that_does_not_fit_fails_configure_before_weights_are_read(start, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError('weights were read')

    monkeypatch.setattr('safe_vla_ros.policies.checkpoint_tensors.read_tensor', refuse)
    with start(proprio__layout=['ee_position', 'ee_axis_angle']) as bench:
        robot = bench.robot
        assert not robot.transition('configure')
        robot.wait_log('which makes 6 numbers; policy')
        assert robot.lifecycle_state() == 'unconfigured'
