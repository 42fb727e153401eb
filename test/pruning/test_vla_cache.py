"""Which tokens VLA-Cache computes again."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.forecast import unit_tokens
from safe_vla_ros.pruning.pruners.vla_cache import renewed_within, reusable_tokens, stillness

TOTAL = 16
numbers = st.permutations([index / 32 for index in range(TOTAL)]).map(torch.tensor)


def test_stillness_is_the_cosine_with_the_same_place():
    before = unit_tokens(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]]))
    after = unit_tokens(torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, -1.0]]))

    torch.testing.assert_close(stillness(after, before), torch.tensor([1.0, 0.5**0.5, -1.0]))


def test_a_hand_computed_budget_takes_the_most_changed_and_the_most_relevant_in_turn():
    still = torch.tensor([0.99, 0.20, 0.95, 0.50, 0.97, 0.98])
    relevance = torch.tensor([0.1, 0.3, 0.0, 0.2, 0.9, 0.4])

    # By change 1 3 2 ...; by relevance 4 5 1 ...: taken 1, 4, 3, 5, (2).
    assert renewed_within(still, relevance, 1).tolist() == [1]
    assert renewed_within(still, relevance, 2).tolist() == [1, 4]
    assert renewed_within(still, relevance, 3).tolist() == [1, 3, 4]
    assert renewed_within(still, relevance, 4).tolist() == [1, 3, 4, 5]
    assert renewed_within(still, relevance, 5).tolist() == [1, 2, 3, 4, 5]


def test_a_hand_computed_reuse_is_still_and_not_relevant():
    still = torch.tensor([0.999, 0.20, 0.998, 0.50, 0.997, 0.9965])
    relevance = torch.tensor([0.1, 0.3, 0.0, 0.2, 0.9, 0.4])

    reusable = reusable_tokens(still, relevance, threshold=0.996, most_still=3, most_relevant=2)

    # Still enough are 0, 2, 4 (5 is the fourth); 4 and 5 are relevant.
    assert reusable.nonzero()[:, 0].tolist() == [0, 2]


@given(still=numbers, relevance=numbers, count=st.integers(0, TOTAL))
@settings(max_examples=60, deadline=None)
def test_a_budget_is_the_union_of_the_tops_of_both_orders_cut_to_size(still, relevance, count):
    renewed = renewed_within(still, relevance, count).tolist()

    assert renewed == sorted(set(renewed))
    assert len(renewed) == count
    changed = still.argsort().tolist()
    relevant = relevance.argsort(descending=True).tolist()
    wanted = []
    for pair in zip(changed, relevant, strict=True):
        wanted += pair
    assert set(list(dict.fromkeys(wanted))[:count]) == set(renewed)


@given(still=numbers, relevance=numbers, order=st.permutations(range(TOTAL)))
@settings(max_examples=40, deadline=None)
def test_permuting_the_tokens_permutes_what_is_computed(still, relevance, order):
    renewed = renewed_within(still, relevance, 5).tolist()
    permuted = renewed_within(still[list(order)], relevance[list(order)], 5).tolist()

    assert {order[index] for index in permuted} == set(renewed)


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
