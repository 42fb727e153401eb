"""Things are marked where the cameras see them."""

import numpy as np
import pytest

from safe_vla_ros.sim.attention_check import ASKED, GRIPPER, THINGS, geoms_by_thing
from safe_vla_ros.sim.expert import look
from safe_vla_ros.sim.marks import MARKED, object_marks, object_points, token_shares
from safe_vla_ros.sim.rendering import CAMERAS, Renderer


def test_a_disc_marks_the_tokens_whose_middle_it_covers():
    disc = np.array([0.25, 0.75, 0.15])  # column, row, radius
    marked = token_shares(disc, 8).reshape(8, 8)
    rows, columns = np.nonzero(marked)
    assert (rows.min(), rows.max()) == (5, 6)
    assert (columns.min(), columns.max()) == (1, 2)
    assert marked.dtype == np.float32


@pytest.mark.parametrize('column', [0.0, 0.13, 0.5, 0.99])
def test_a_thing_smaller_than_a_token_marks_at_least_one(column):
    assert token_shares(np.array([column, 0.3, 0.001]), 8).sum() >= 1


def test_what_is_behind_the_camera_marks_nothing():
    assert token_shares(np.zeros((4, 3)), 8).sum() == 0


def test_every_disc_lies_on_what_it_marks(arm):
    """Compared with a segmentation of the images, at the start of an episode."""
    view = arm.snapshot()
    points = object_points(look(arm), other_asked=False)
    marks = object_marks(arm.model, view, points)
    geoms = geoms_by_thing(arm.model, other_asked=False)
    things = dict(zip(MARKED[1:], (t for t in THINGS if t != GRIPPER), strict=True))
    middle = (np.arange(256) + 0.5) / 256
    renderer = Renderer(arm.model)
    compared = {}
    for camera, name in enumerate(CAMERAS):
        shown = renderer.segment(view, name)
        # The hand is marked between the finger tips, where nothing is to be seen.
        for thing, (column, row, radius) in zip(things.values(), marks[camera, 1:], strict=True):
            seen = np.isin(shown, geoms[thing])
            disc = np.hypot(middle[None] - column, middle[:, None] - row) < radius
            if seen.sum() > 100:
                compared[name, thing] = (seen & disc).sum() / (seen | disc).sum()
    renderer.close()
    assert {thing for camera, thing in compared if camera == 'agentview'} == set(things.values())
    assert any(camera == 'wrist' for camera, _ in compared)
    assert min(compared.values()) > 0.5, compared


def test_the_other_bowl_is_the_asked_one_with_the_other_task(arm, other_arm):
    first = geoms_by_thing(other_arm.model, other_asked=False)
    second = geoms_by_thing(other_arm.model, other_asked=True)
    assert first[ASKED]
    assert not set(first[ASKED]) & set(second[ASKED])
    first_points = object_points(look(other_arm), other_asked=True)
    other_arm.ask('libero_spatial/0')
    np.testing.assert_array_equal(first_points, object_points(look(other_arm), other_asked=False))
