"""Which tokens are kept, and how many."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.selection import camera_quotas, kept_count, top_tokens

scores_lists = st.lists(
    st.floats(0.0, 1.0, width=32, allow_subnormal=False), min_size=1, max_size=40
)


@given(scores=scores_lists, share=st.floats(0.0, 1.0))
@settings(max_examples=80, deadline=None)
def test_kept_indices_are_sorted_unique_in_range_and_exactly_m(scores, share):
    count = kept_count(len(scores), share)

    kept = top_tokens(torch.tensor(scores), count).tolist()

    assert kept == sorted(set(kept))
    assert len(kept) == count
    assert all(0 <= index < len(scores) for index in kept)


@given(scores=scores_lists, share=st.floats(0.0, 1.0))
@settings(max_examples=80, deadline=None)
def test_no_dropped_token_beats_a_kept_one_and_ties_go_to_the_lower_index(scores, share):
    count = kept_count(len(scores), share)

    kept = set(top_tokens(torch.tensor(scores), count).tolist())

    ranked = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    assert kept == set(ranked[:count])


@given(
    scores=st.permutations([index / 64 for index in range(24)]), order=st.permutations(range(24))
)
@settings(max_examples=50, deadline=None)
def test_permuting_tokens_permutes_the_kept_set(scores, order):
    values = torch.tensor(scores)

    kept = set(top_tokens(values, 9).tolist())
    kept_permuted = set(top_tokens(values[list(order)], 9).tolist())

    assert {order[index] for index in kept_permuted} == kept


@pytest.mark.parametrize(
    ('total', 'keep_ratio', 'expected'),
    [(512, 0.25, 128), (50, 0.25, 12), (54, 0.25, 14), (15, 1 - 0.7, 5), (15, 0.3, 4), (7, 1.0, 7)],
)
def test_kept_count_rounds_half_to_even_and_takes_the_ratio_as_given(total, keep_ratio, expected):
    assert kept_count(total, keep_ratio) == expected


def test_cameras_share_what_is_kept_in_proportion_and_the_earlier_one_gets_an_odd_token():
    assert camera_quotas((196, 49), 61) == (49, 12)
    assert camera_quotas((256, 256), 129) == (65, 64)
    assert camera_quotas((10,), 0) == (0,)


@given(tokens=st.lists(st.integers(1, 300), min_size=1, max_size=4), share=st.floats(0.0, 1.0))
@settings(max_examples=80, deadline=None)
def test_camera_quotas_add_up_and_miss_the_exact_share_by_less_than_one_token(tokens, share):
    count = kept_count(sum(tokens), share)

    quotas = camera_quotas(tokens, count)

    assert sum(quotas) == count
    for quota, available in zip(quotas, tokens, strict=True):
        assert 0 <= quota <= available
        assert abs(quota - available * count / sum(tokens)) < 1
