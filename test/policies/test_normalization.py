"""Dataset statistics."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.normalization import (
    Bounds,
    choose_statistics,
    normalize_proprio,
    read_bounds,
    unnormalize_actions,
)

ENTRY = {
    'min': [-2.0, -3.0],
    'max': [2.0, 3.0],
    'q01': [-1.0, -1.5],
    'q99': [1.0, 1.5],
    'mask': [True, False],
}


def test_bounds_and_quantiles_are_different_keys():
    plain = read_bounds({'action': ENTRY}, 'action', 'bounds', 'file')
    quantile = read_bounds({'action': ENTRY}, 'action', 'bounds_q99', 'file')
    assert plain.high.tolist() == [2.0, 3.0]
    assert quantile.high.tolist() == [1.0, 1.5]


def test_masked_dimensions_pass_unchanged():
    bounds = read_bounds({'action': ENTRY}, 'action', 'bounds', 'file')
    actions = unnormalize_actions(np.array([[1.0, 0.7], [-1.0, 0.0]]), bounds, epsilon=0.0)
    assert actions.tolist() == [[2.0, 0.7], [-2.0, 0.0]]


def test_a_missing_mask_normalises_everything():
    entry = {'q01': [-1.0], 'q99': [3.0]}
    bounds = read_bounds({'proprio': entry}, 'proprio', 'bounds_q99', 'file')
    assert bounds.mask.tolist() == [True]


@settings(max_examples=50, deadline=None)
@given(low=st.floats(-10, 9), span=st.floats(0.1, 10), share=st.floats(0, 1), mask=st.booleans())
def test_normalising_is_undone_inside_the_bounds(low, span, share, mask):
    bounds = Bounds(np.array([low]), np.array([low + span]), np.array([mask]))
    value = np.array([low + share * span])
    back = unnormalize_actions(normalize_proprio(value, bounds)[None], bounds)[0]
    np.testing.assert_allclose(back, value, atol=1e-6)


def test_proprioception_outside_the_bounds_is_clipped():
    bounds = read_bounds({'action': {**ENTRY, 'mask': [True, True]}}, 'action', 'bounds', 'file')
    assert normalize_proprio(np.array([9.0, -9.0]), bounds).tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ('proprio', 'sentence'),
    [(np.zeros(3), 'has 3 values; the checkpoint takes 2'), (np.array([0, np.nan]), 'holds nan')],
)
def test_proprioception_that_does_not_fit_is_refused(proprio, sentence):
    bounds = read_bounds({'action': ENTRY}, 'action', 'bounds', 'file')
    with pytest.raises(ObservationError, match=sentence):
        normalize_proprio(proprio, bounds)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'q01': None}, "no key 'q01', which bounds_q99 normalisation needs"),
        ({'q01': 'high'}, 'q01 must be a list of numbers'),
        ({'q01': [float('nan'), 0.0]}, 'q01 must be a list of finite numbers'),
        ({'q01': [0.0]}, 'must be equally many'),
        ({'mask': [True]}, 'must be equally many'),
        ({'mask': [1, 0]}, 'mask true/false'),
    ],
)
def test_broken_statistics_are_named(changes, sentence):
    entry = {key: value for key, value in (ENTRY | changes).items() if value is not None}
    with pytest.raises(CheckpointError, match=sentence) as caught:
        read_bounds({'action': entry}, 'action', 'bounds_q99', 'stats.json: bridge')
    assert 'stats.json: bridge' in str(caught.value)


def test_the_only_dataset_needs_no_key():
    assert choose_statistics({'bridge': {}}, '', 'dir')[0] == 'bridge'


def test_the_plain_suite_name_finds_the_filtered_dataset():
    assert choose_statistics({'libero_no_noops': {}}, 'libero', 'dir')[0] == 'libero_no_noops'


@pytest.mark.parametrize('key', ['', 'kuka'])
def test_an_ambiguous_or_unknown_key_lists_what_there_is(key):
    with pytest.raises(CheckpointError, match=r'unnorm_key .*: bridge, fractal'):
        choose_statistics({'fractal': {}, 'bridge': {}}, key, 'dir')
