from dataclasses import replace

import cv2
import numpy as np
import pytest

from safe_vla_ros.runtime.overlay import (
    DIM,
    TokenArea,
    overlay_size,
    render_overlay,
    render_record,
    score_range,
)
from safe_vla_ros.runtime.overlay_strip import StripFacts
from safe_vla_ros.types import PolicySettings, PruningRecord


def make_facts(**changes):
    values = {
        'method': 'safe',
        'kept': 49,
        'total': 196,
        'kept_of_all': 61,
        'total_of_all': 245,
        'similarity': 0.71,
        'threshold': 0.55,
        'key_step': False,
        'reason': None,
        'episode': 3,
        'step': 12,
    }
    return StripFacts(**{**values, **changes})


def quarter_kept(rows=4, columns=4):
    mask = np.zeros((rows, columns), bool)
    mask[: rows // 2, : columns // 2] = True
    return mask


def make_record(cameras):
    scores = {
        name: np.linspace(low, low + 1, 16, dtype=np.float32).reshape(4, 4)
        for name, low in cameras.items()
    }
    return PruningRecord(
        method='safe',
        total=dict.fromkeys(cameras, 16),
        kept=dict.fromkeys(cameras, 4),
        key_step=False,
        reason=None,
        similarity=0.7,
        threshold=0.5,
        scores=scores,
        kept_masks={name: quarter_kept() for name in cameras},
        stage_ms={},
        decoder_macs=1,
        decoder_macs_full=2,
    )


RENEWED = {'method': 'refresh', 'similarity': None, 'max_staleness': 0.1, 'oldest': 7}
STATES = {
    'pruned': (make_facts(), quarter_kept(), True),
    'key_step': (make_facts(key_step=True, reason='attention_shift'), np.ones((4, 4), bool), True),
    'first_step': (
        make_facts(key_step=True, reason='episode_start', similarity=None),
        np.ones((4, 4), bool),
        True,
    ),
    'renewed': (make_facts(**RENEWED, residual=0.07), quarter_kept(), True),
    'all_renewed': (make_facts(**RENEWED, residual=None), np.ones((4, 4), bool), True),
    'none': (make_facts(method='none', similarity=None), np.ones((4, 4), bool), False),
    'random': (make_facts(method='random', similarity=None), quarter_kept(), False),
}


@pytest.mark.parametrize('state', STATES)
@pytest.mark.parametrize('size', [(480, 640), (224, 224), (112, 112), (56, 56), (1, 1), (3, 2000)])
def test_size_depends_on_the_image_only(state, size):
    facts, mask, with_scores = STATES[state]
    image = np.full((*size, 3), 90, np.uint8)
    scores = np.random.default_rng(0).random((4, 4), np.float32) if with_scores else None
    overlay = render_overlay(image, kept_mask=mask, scores=scores, facts=facts)
    assert overlay.shape == (*overlay_size(*size), 3)
    assert overlay.dtype == np.uint8
    assert (image == 90).all()


@pytest.mark.parametrize('size', [(480, 640), (224, 224), (112, 112), (57, 56), (101, 333)])
def test_size_is_even_and_readable(size):
    height, width = overlay_size(*size)
    assert height % 2 == 0
    assert width % 2 == 0
    assert min(height, width) >= 224


def test_dropped_tokens_are_dimmed_and_kept_ones_untouched_without_scores():
    image = np.full((480, 640, 3), 200, np.uint8)
    overlay = render_overlay(image, kept_mask=quarter_kept(), scores=None, facts=make_facts())
    assert (overlay[60, 80] == 200).all()
    assert (overlay[300, 400] == round(200 * DIM)).all()


def test_kept_tokens_are_outlined_in_white_and_black():
    image = np.full((480, 640, 3), 128, np.uint8)
    overlay = render_overlay(image, kept_mask=quarter_kept(), scores=None, facts=make_facts())
    crossing = overlay[100, 300:340, 0]
    assert 255 in crossing
    assert 0 in crossing
    assert overlay[0, 100, 0] == 255


def test_nothing_is_drawn_over_an_unpruned_image_without_scores():
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    facts, mask, _ = STATES['none']
    overlay = render_overlay(image, kept_mask=mask, scores=None, facts=facts)
    assert (overlay[:224, :224] == image).all()


def test_higher_scores_are_brighter_in_greyscale():
    scores = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    image = np.full((224, 224, 3), 128, np.uint8)
    overlay = render_overlay(
        image, kept_mask=np.ones((4, 4), bool), scores=scores, facts=make_facts()
    )
    grey = cv2.cvtColor(overlay, cv2.COLOR_RGB2GRAY)
    centres = grey[28:224:56, 28:224:56].ravel().astype(int)
    assert (np.diff(centres[:15]) > 0).all()


def test_key_step_is_marked_by_frame_and_inverted_line():
    facts, mask, _ = STATES['key_step']
    image = np.full((224, 224, 3), 60, np.uint8)
    marked = render_overlay(image, kept_mask=mask, scores=None, facts=facts)
    plain = render_overlay(image, kept_mask=mask, scores=None, facts=make_facts())
    assert (marked[0, :224] == 255).all()
    assert (plain[0, :224] == 60).all()
    assert marked[-10:].mean() > 180
    assert plain[-10:].mean() < 120


def test_reasons_give_different_pictures():
    image = np.zeros((224, 224, 3), np.uint8)
    mask = np.ones((4, 4), bool)
    pictures = {
        render_overlay(
            image, kept_mask=mask, scores=None, facts=make_facts(key_step=True, reason=reason)
        ).tobytes()
        for reason in ('attention_shift', 'episode_start', 'observation_gap', None)
    }
    assert len(pictures) == 4


def test_gauge_shows_similarity_against_threshold():
    image = np.zeros((224, 640, 3), np.uint8)
    mask = np.ones((4, 4), bool)
    low, high = (
        render_overlay(image, kept_mask=mask, scores=None, facts=make_facts(similarity=value))
        for value in (0.2, 0.9)
    )
    assert high[-24:].sum() > low[-24:].sum()


@pytest.mark.parametrize('similarity', [-1.0, -0.2, 0.0, 1.0])
def test_any_similarity_fits_the_gauge(similarity):
    image = np.zeros((224, 224, 3), np.uint8)
    render_overlay(
        image,
        kept_mask=quarter_kept(),
        scores=None,
        facts=make_facts(similarity=similarity, threshold=-1.0),
    )


def test_long_names_stay_inside_the_strip():
    image = np.zeros((224, 224, 3), np.uint8)
    facts = make_facts(
        method='a_pruner_with_quite_a_long_name', episode=123456, step=1234567, total_of_all=99999
    )
    render_overlay(image, kept_mask=quarter_kept(), scores=None, facts=facts)


def test_crop_leaves_the_margin_of_the_image_as_it_is():
    image = np.full((200, 400, 3), 100, np.uint8)
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    overlay = render_overlay(
        image, kept_mask=mask, scores=None, facts=make_facts(), area=TokenArea(crop_fraction=0.8)
    )
    factor = overlay.shape[1] // 400
    picture = overlay[: 200 * factor]
    assert (picture[10 * factor] == 100).all()
    assert (picture[150 * factor, 300 * factor] == 40).all()


def test_the_area_follows_the_image_preparation():
    settings = PolicySettings(
        cameras=('c',),
        linear_scale_m=1.0,
        angular_scale_rad=1.0,
        rotation='axis_angle',
        gripper_open_value=1.0,
        gripper_closed_value=0.0,
        rotate_180=False,
        mirror=False,
        center_crop=True,
        jpeg_roundtrip=False,
    )
    assert TokenArea.of(settings) == TokenArea(pytest.approx(0.9487, abs=1e-4), False)
    assert TokenArea.of(replace(settings, center_crop=False, rotate_180=True)) == TokenArea(1, True)
    mirrored = replace(settings, center_crop=False, mirror=True)
    assert TokenArea.of(mirrored) == TokenArea(1, mirror=True)


def test_rotated_models_tokens_are_drawn_where_the_camera_sees_them():
    image = np.full((240, 240, 3), 100, np.uint8)
    overlay = render_overlay(
        image,
        kept_mask=quarter_kept(),
        scores=None,
        facts=make_facts(),
        area=TokenArea(rotate_180=True),
    )
    assert overlay[180, 180, 0] == 100
    assert overlay[60, 60, 0] == 40


def test_mirrored_models_tokens_are_drawn_where_the_camera_sees_them():
    image = np.full((240, 240, 3), 100, np.uint8)
    overlay = render_overlay(
        image,
        kept_mask=quarter_kept(),
        scores=None,
        facts=make_facts(),
        area=TokenArea(mirror=True),
    )
    assert overlay[60, 180, 0] == 100
    assert overlay[60, 60, 0] == 40


def test_cameras_of_one_record_share_one_colour_scale():
    record = make_record({'dark': 0.0, 'bright': 10.0})
    image = np.zeros((224, 224, 3), np.uint8)
    dark, bright = (
        render_record(image, record, camera, episode=1, step=1) for camera in ('dark', 'bright')
    )
    assert bright[28, 28].sum() > dark[28, 28].sum()
    low, high = score_range(record.scores)
    assert low == 0.0
    assert 10 < high < 11


def test_a_constant_score_is_drawn():
    image = np.zeros((224, 224, 3), np.uint8)
    render_overlay(
        image, kept_mask=quarter_kept(), scores=np.zeros((4, 4), np.float32), facts=make_facts()
    )


def test_no_scores_have_no_range():
    assert score_range({}) is None


def test_a_stale_token_is_the_darker_the_older_it_is_and_never_as_dark_as_a_dropped_one_at_once():
    image = np.full((240, 240, 3), 200, np.uint8)
    ages = np.zeros((4, 4), np.float32)
    ages[2] = [1, 4, 10, 50]
    overlay = render_overlay(
        image, kept_mask=ages == 0, scores=None, facts=make_facts(**RENEWED), ages=ages
    )
    row = overlay[150, 30:240:60, 0].astype(int)
    assert (overlay[30, 30] == 200).all()
    assert 200 > row[0] > row[1] > row[2] == row[3] == round(200 * DIM)


def test_the_strip_of_a_method_that_renews_speaks_of_renewed_tokens_their_age_and_the_residual():
    facts = make_facts(**RENEWED, residual=0.07)
    assert facts.tokens == 'renewed 49/196, all 61/245, oldest 7'
    assert facts.test == 'residual 0.07 <= 0.1'
    assert facts.gauge == pytest.approx((0.35, 0.5))
    assert replace(facts, residual=0.2).test == 'residual 0.2 > 0.1'
    small = replace(facts, residual=0.01324, max_staleness=0.0101)
    assert small.test == 'residual 0.0132 > 0.0101'
    assert small.gauge == pytest.approx((0.655, 0.5), abs=1e-3)
    off = replace(facts, max_staleness=0.0)
    assert (off.test, off.gauge) == ('residual 0.07', None)
    assert replace(facts, residual=None, oldest=0, key_step=True).test == 'nothing stored'
    assert replace(facts, residual=None, key_step=False).test == 'no limit'


def test_the_strip_of_a_method_that_drops_speaks_of_kept_tokens_and_kappa():
    facts = make_facts()
    assert facts.tokens == 'kept 49/196, all 61/245'
    assert facts.test == 'kappa 0.71 >= 0.55'
    assert replace(facts, similarity=None).test == 'no forecast'


def test_a_record_with_ages_is_drawn_as_renewed():
    record = make_record({'front': 0.0})
    ages = np.where(quarter_kept(), 0, 3).astype(np.float32)
    image = np.full((240, 240, 3), 200, np.uint8)

    renewed, dropped = (
        render_record(image, replace(record, ages=grids, scores={}), 'front', episode=1, step=1)
        for grids in ({'front': ages}, {})
    )

    assert renewed[150, 150, 0] > dropped[150, 150, 0]
