"""Greedy max-min choice of tokens."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.diversity import farthest_tokens
from safe_vla_ros.pruning.forecast import unit_tokens


def at_degrees(*angles):
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])


def make_tokens(seed, total=20, width=6):
    return unit_tokens(torch.randn(total, width, generator=torch.Generator().manual_seed(seed)))


def slow_choice(tokens, count, candidates):
    """The definition, token by token; what has been chosen is re-read every time."""

    cosine = tokens.double() @ tokens.double().T

    def distance(i, j):
        return 1.0 - max(cosine[i, j].item(), cosine[j, i].item())

    def first(i):
        return min(distance(i, j) for j in candidates if j != i)

    chosen = [max(candidates, key=lambda i: (first(i), -i))]
    while len(chosen) < count:
        rest = [i for i in candidates if i not in chosen]
        chosen.append(max(rest, key=lambda i: (min(distance(i, j) for j in chosen), -i)))
    return sorted(chosen)


def test_a_hand_computed_choice_begins_with_the_loneliest_and_goes_on_with_the_farthest():
    # Nearest neighbours are 10, 10, 30, 50 and 50 degrees away: 170 (before 220) is the loneliest.
    # From 170, 0 is 170 degrees away; then 40 is 40 and 220 is 50 degrees from the nearer one.
    tokens = at_degrees(0, 10, 40, 170, 220)

    assert farthest_tokens(tokens, 1).tolist() == [3]
    assert farthest_tokens(tokens, 2).tolist() == [0, 3]
    assert farthest_tokens(tokens, 3).tolist() == [0, 3, 4]
    assert farthest_tokens(tokens, 4).tolist() == [0, 2, 3, 4]


def test_among_candidates_the_others_neither_count_nor_win():
    tokens = at_degrees(0, 10, 40, 170, 220)
    candidates = torch.tensor([True, True, True, False, False])

    # Without 170 and 220 the loneliest is 40 (30 degrees), and 0 is farthest from it.
    assert farthest_tokens(tokens, 1, candidates).tolist() == [2]
    assert farthest_tokens(tokens, 2, candidates).tolist() == [0, 2]


def test_equal_distances_go_to_the_lower_index():
    tokens = torch.eye(4)

    assert farthest_tokens(tokens, 2).tolist() == [0, 1]


def test_other_tokens_fill_up_when_there_are_too_few_candidates():
    candidates = torch.tensor([False, False, True, False, False])

    kept = farthest_tokens(at_degrees(0, 10, 40, 170, 220), 3, candidates)

    assert kept.tolist() == [2, 3, 4]


def test_copies_of_one_token_do_not_repeat_an_index():
    assert farthest_tokens(torch.ones(5, 3) / math.sqrt(3), 4).tolist() == [0, 1, 2, 3]


@given(seed=st.integers(0, 5000), count=st.integers(1, 20), masked=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_choice_is_that_of_the_definition(seed, count, masked):
    tokens = make_tokens(seed)
    candidates = torch.ones(20, dtype=torch.bool)
    if masked:
        chosen = torch.randperm(20, generator=torch.Generator().manual_seed(seed))[count:]
        candidates[chosen[: 18 - count]] = False

    kept = farthest_tokens(tokens, count, candidates if masked else None).tolist()

    assert kept == slow_choice(tokens, count, candidates.nonzero()[:, 0].tolist())


@given(seed=st.integers(0, 5000), order=st.permutations(range(20)))
@settings(max_examples=30, deadline=None)
def test_permuting_the_tokens_permutes_the_choice(seed, order):
    tokens = make_tokens(seed)
    nearest = (tokens @ tokens.T - 2 * torch.eye(20)).max(dim=1).values.sort().values
    assume(nearest[1] - nearest[0] > 1e-4)  # else the loneliest are two, each other's neighbours

    kept = farthest_tokens(tokens, 7).tolist()
    permuted = farthest_tokens(tokens[list(order)], 7).tolist()

    assert {order[index] for index in permuted} == set(kept)


@pytest.mark.parametrize('count', [1, 5, 20])
def test_the_choice_is_sorted_unique_and_exactly_as_large_as_asked(count):
    kept = farthest_tokens(make_tokens(3), count).tolist()

    assert kept == sorted(set(kept))
    assert len(kept) == count
