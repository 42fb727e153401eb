"""Image preparation against TensorFlow's own results (see test/golden/README.md)."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvla_checkpoints import policy_settings

from safe_vla_ros.errors import ImageError
from safe_vla_ros.policies.image_preparation import (
    ImagePreparation,
    center_crop,
    jpeg_roundtrip,
    resize_lanczos3,
)

CASES = ('shrink', 'camera', 'enlarge', 'one_axis')
JPEG_WORST, JPEG_MEAN = 16, 2.0
"""TensorFlow decodes with a fast, inexact inverse DCT; the encoders agree byte for byte."""


@pytest.fixture(scope='module')
def reference():
    with np.load(Path(__file__).with_name('tensorflow_image_preparation.npz')) as content:
        return dict(content)


def grey_levels(got, expected):
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype == np.uint8
    return np.abs(got.astype(int) - expected.astype(int))


@pytest.mark.parametrize('case', CASES)
def test_resize_is_within_one_grey_level_of_tensorflow(reference, case):
    expected = reference[f'{case}_resized']
    got = resize_lanczos3(reference[f'{case}_source'], *expected.shape[:2])
    assert grey_levels(got, expected).max() <= 1


@pytest.mark.parametrize('case', CASES)
def test_crop_is_within_one_grey_level_of_tensorflow(reference, case):
    got = center_crop(reference[f'{case}_resized'])
    assert grey_levels(got, reference[f'{case}_cropped']).max() <= 1


def test_crop_at_the_models_own_size_is_within_one_grey_level(reference):
    got = center_crop(reference['full_source'])
    assert grey_levels(got, reference['full_cropped']).max() <= 1


@pytest.mark.parametrize('case', [*CASES, 'odd'])
def test_jpeg_round_trip_stays_within_the_stated_bound(reference, case):
    levels = grey_levels(jpeg_roundtrip(reference[f'{case}_source']), reference[f'{case}_jpeg'])
    assert levels.max() <= JPEG_WORST
    assert levels.mean() <= JPEG_MEAN


@pytest.mark.parametrize('case', CASES)
def test_all_steps_in_order_stay_within_the_jpeg_bound(reference, case):
    expected = reference[f'{case}_all']
    prepare = ImagePreparation(
        len(expected), rotate_180=True, jpeg_roundtrip=True, center_crop=True
    )
    levels = grey_levels(prepare(reference[f'{case}_source']), expected)
    assert levels.max() <= JPEG_WORST
    assert levels.mean() <= JPEG_MEAN


def test_an_image_of_the_right_size_passes_unchanged(reference):
    image = reference['shrink_source']
    assert np.array_equal(ImagePreparation(64)(image), image)


def test_rotation_turns_both_axes(reference):
    image = reference['shrink_source']
    assert np.array_equal(ImagePreparation(64, rotate_180=True)(image), np.rot90(image, 2))


def test_mirroring_exchanges_left_and_right(reference):
    image = reference['shrink_source']
    assert np.array_equal(ImagePreparation(64, mirror=True)(image), np.fliplr(image))


def test_an_upright_libero_view_mirrored_is_the_evaluations_turned_observation(reference):
    upright = reference['shrink_source']
    observation = upright[::-1]
    expected = observation[::-1, ::-1]
    assert np.array_equal(ImagePreparation(64, mirror=True)(upright), expected)


def test_the_preparation_follows_the_settings(reference):
    image = reference['shrink_source']
    turned = policy_settings(rotate_180=True, mirror=True)
    assert np.array_equal(ImagePreparation.of(turned, 64)(image), image[::-1])
    cropped = policy_settings(jpeg_roundtrip=True, center_crop=True)
    expected = center_crop(jpeg_roundtrip(image))
    assert np.array_equal(ImagePreparation.of(cropped, 64)(image), expected)


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 30),
    level=st.integers(0, 255),
)
def test_a_uniform_image_stays_uniform(height, width, size, level):
    image = np.full((height, width, 3), level, dtype=np.uint8)
    prepared = ImagePreparation(size, center_crop=True)(image)
    assert prepared.shape == (size, size, 3)
    assert (prepared == level).all()


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_anything_but_an_rgb_image_is_refused(image):
    with pytest.raises(ImageError, match=r'allowed is uint8 \[height, width, 3\]'):
        ImagePreparation(2)(image)
