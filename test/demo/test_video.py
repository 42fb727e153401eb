"""Videos and the picture of the demo."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from safe_vla_ros.demo.video import (
    BAR_PX,
    GAP_PX,
    VIEW_PX,
    Film,
    compose,
    write_picture,
    write_video,
)
from safe_vla_ros.errors import OutputError

RED, BLUE = (200, 0, 0), (0, 0, 200)


def film(frames=6, overlays=(2, 4), size=(40, 40)):
    def image(colour):
        return np.full((*size, 3), colour, np.uint8)

    return Film(
        caption='"pick up the black bowl"   safe: success',
        camera=[(10.0 + i / 20, image(RED)) for i in range(frames)],
        overlay=[(10.0 + i / 20, image(BLUE)) for i in overlays],
    )


def test_camera_and_the_newest_overlay_of_that_moment_stand_side_by_side():
    before, after = compose(film(), 10.0), compose(film(), 10.15)
    assert before.shape == (VIEW_PX + BAR_PX, 2 * VIEW_PX + GAP_PX, 3)
    assert tuple(before[100, 100]) == tuple(after[100, 100]) == RED
    assert tuple(before[100, VIEW_PX + GAP_PX + 100]) != BLUE
    assert tuple(after[100, VIEW_PX + GAP_PX + 100]) == BLUE
    assert (after[VIEW_PX:, :VIEW_PX] > 100).any()


def test_a_video_has_one_frame_per_picture(tmp_path):
    path = tmp_path / 'reach.mp4'
    assert write_video(film(), path, 20.0)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    assert len(frames) == 6
    assert frames[0].shape == (VIEW_PX + BAR_PX, 2 * VIEW_PX + GAP_PX, 3)
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_are_shown_when_they_were_taken(tmp_path):
    path = tmp_path / 'reach.mp4'
    whole = film(frames=5)
    gappy = Film('', [*whole.camera[:2], *whole.camera[4:]], whole.overlay)
    assert write_video(gappy, path, 20.0)
    with av.open(str(path)) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times_s, [0.0, 0.05, 0.2], atol=2e-3)


def test_the_strip_of_an_overlay_lies_below_the_camera_view():
    higher = Film('', film().camera, [(10.0, np.full((60, 40, 3), BLUE, np.uint8))])
    picture = compose(higher, 10.1)
    assert picture.shape[0] == VIEW_PX * 3 // 2
    assert tuple(picture[VIEW_PX + 50, 100]) != RED
    assert tuple(picture[VIEW_PX + 50, VIEW_PX + GAP_PX + 100]) == BLUE


def test_nothing_filmed_makes_no_files(tmp_path):
    empty = Film('', [], [])
    assert not write_video(empty, tmp_path / 'a.mp4', 20.0)
    assert not write_picture([empty], tmp_path / 'a.png')
    assert not list(tmp_path.iterdir())


def test_the_picture_shows_at_most_three_films(tmp_path):
    path = tmp_path / 'docs' / 'demo.png'
    assert write_picture([film()] * 5, path)
    size = (2 * VIEW_PX + BAR_PX, 3 * VIEW_PX + 2 * GAP_PX, 3)
    assert cv2.imread(str(path)).shape == size


def noisy_film():
    noise = np.random.default_rng(0).integers(0, 255, (30, 224, 224, 3), np.uint8)
    frames = [(10.0 + i / 20, image) for i, image in enumerate(noise)]
    return Film('', frames, frames)


@pytest.mark.parametrize('size', [0, 10_000, 200_000])
def test_a_video_that_the_disk_does_not_take_is_absent_and_its_error_names_it(
    tmp_path, small_files, size
):
    path = tmp_path / 'reach.mp4'
    with small_files(size), pytest.raises(OutputError, match=r'reach\.mp4 cannot be written: '):
        write_video(noisy_film(), path, 20.0)
    assert not list(tmp_path.iterdir())


def test_a_picture_that_the_disk_does_not_take_is_absent_and_its_error_names_it(
    tmp_path, small_files
):
    path = tmp_path / 'demo.png'
    with small_files(1000), pytest.raises(OutputError, match=r'demo\.png cannot be written: '):
        write_picture([noisy_film()], path)
    assert not list(tmp_path.iterdir())
