"""Which tokens VLA-Cache computes again."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.forecast import unit_tokens
from safe_vla_ros.pruning.pruners.vla_cache import (
    computed_by_layer,
    order_by_need,
    read_entropy,
    reusable_tokens,
    reuse_shares,
    stillness,
)

TOTAL = 16
numbers = st.permutations([index / 32 for index in range(TOTAL)]).map(torch.tensor)


def test_stillness_is_the_cosine_with_the_same_place():
    before = unit_tokens(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]))
    after = unit_tokens(torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, -1.0]]))

    torch.testing.assert_close(stillness(after, before), torch.tensor([1.0, 0.5**0.5, -1.0]))


def test_an_unchanged_picture_is_exactly_still_even_a_black_one():
    pictures = unit_tokens(torch.tensor([[0.0, 0.0], [3.0, 4.1], [0.1, 0.7]]))

    assert stillness(pictures, pictures.clone()).tolist() == [1.0, 1.0, 1.0]


def test_a_hand_computed_order_takes_the_most_changed_and_the_most_relevant_in_turn():
    still = torch.tensor([0.99, 0.20, 0.95, 0.50, 0.97, 0.98])
    relevance = torch.tensor([0.1, 0.3, 0.0, 0.2, 0.9, 0.4])

    # By change 1 3 2 4 5 0; by relevance 4 5 1 3 0 2.
    assert order_by_need(still, relevance).tolist() == [1, 4, 3, 5, 2, 0]


def test_a_hand_computed_reuse_is_still_and_not_relevant():
    still = torch.tensor([0.999, 0.20, 0.998, 0.50, 0.997, 0.9965])
    relevance = torch.tensor([0.1, 0.3, 0.0, 0.2, 0.9, 0.4])

    reusable = reusable_tokens(still, relevance, threshold=0.996, most_still=3, most_relevant=2)

    # Still enough are 0, 2, 4 (5 is the fourth); 4 and 5 are relevant.
    assert reusable.nonzero()[:, 0].tolist() == [0, 2]


@given(still=numbers, relevance=numbers)
@settings(max_examples=60, deadline=None)
def test_the_order_is_that_of_both_orders_in_turn_without_repetition(still, relevance):
    changed = still.argsort().tolist()
    relevant = relevance.argsort(descending=True).tolist()

    order = order_by_need(still, relevance).tolist()

    in_turn = [token for pair in zip(changed, relevant, strict=True) for token in pair]
    assert order == list(dict.fromkeys(in_turn))


@given(still=numbers, relevance=numbers, order=st.permutations(range(TOTAL)))
@settings(max_examples=40, deadline=None)
def test_permuting_the_tokens_permutes_the_order(still, relevance, order):
    need = order_by_need(still, relevance).tolist()
    permuted = order_by_need(still[list(order)], relevance[list(order)]).tolist()

    assert [order[index] for index in permuted] == need


@given(
    still=numbers,
    relevance=numbers,
    threshold=st.floats(-0.1, 0.6),
    most_still=st.integers(0, TOTAL),
    most_relevant=st.integers(0, TOTAL),
)
@settings(max_examples=60, deadline=None)
def test_nothing_that_moved_or_matters_is_reused(
    still, relevance, threshold, most_still, most_relevant
):
    reusable = reusable_tokens(
        still, relevance, threshold=threshold, most_still=most_still, most_relevant=most_relevant
    )

    assert reusable.sum() <= most_still
    assert (still[reusable] >= threshold).all()
    assert not reusable[relevance.argsort(descending=True)[:most_relevant]].any()
    fitting = (still >= threshold).sum().item()
    assert reusable.sum() >= min(most_still, fitting) - most_relevant


def test_hand_computed_entropy_is_of_the_mean_over_heads():
    heads = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])

    torch.testing.assert_close(read_entropy(heads, slice(0, 1)), torch.tensor([math.log(2)]))
    assert read_entropy(heads[:1, :1], slice(0, 1)).tolist() == [0.0]


def test_hand_computed_shares_follow_the_entropy_and_rise_slowly():
    # Scaled: 1, 0, .5, .25; as shares 0, 1, .5, .75. Rises 0 -> 1 and .5 -> .75 count .55.
    shares = reuse_shares([3.0, 1.0, 2.0, 1.5])

    assert shares == pytest.approx([0.0, 0.55, 0.5, 0.5 + 0.55 * 0.25])


def test_equal_entropies_reuse_all_that_may_be():
    assert reuse_shares([2.0] * 5) == [1.0] * 5


def test_tokens_leave_at_the_published_layers_in_sixteenths_and_do_not_come_back():
    shares = [0.0] * 32
    shares[2], shares[6], shares[9], shares[11] = 0.5, 0.2, 0.9, 1.0

    # Sixteenths of 512 are 32: 150 reusable give 75 -> 64, 30 -> 0, 135 -> 128, 150 -> 128.
    assert computed_by_layer(512, 150, shares) == {2: 448, 9: 384}


@given(
    total=st.integers(1, 600),
    share=st.floats(0.0, 1.0),
    layers=st.integers(1, 40),
    seed=st.integers(0, 100),
)
@settings(max_examples=80, deadline=None)
def test_the_numbers_of_a_pass_fall_and_never_reuse_more_than_may_be(total, share, layers, seed):
    reusable = int(share * total)
    shares = torch.rand(layers, generator=torch.Generator().manual_seed(seed)).tolist()

    counts = computed_by_layer(total, reusable, shares)

    assert list(counts) == sorted(counts)
    assert all(1 <= layer < layers for layer in counts)
    numbers = [total, *counts.values()]
    assert all(before > after for before, after in itertools.pairwise(numbers))
    assert numbers[-1] >= total - reusable
