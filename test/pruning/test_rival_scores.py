"""Scores of the methods that are compared: ordered dither, SparseVLM, VLA-Pruner."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.full_passes import is_full_pass
from safe_vla_ros.pruning.pruners.grid import dither_order, dithered_cells
from safe_vla_ros.pruning.pruners.sparsevlm import rater_weights
from safe_vla_ros.pruning.pruners.vla_pruner import decayed_guide, relevant_tokens

sides = st.integers(1, 18)


def test_a_4_by_4_grid_has_the_order_of_bayers_matrix():
    order = dither_order(4, 4)

    places = [order.index(cell) for cell in range(16)]
    assert places == [0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5]


@given(rows=sides, columns=sides)
@settings(max_examples=60, deadline=None)
def test_the_order_names_every_cell_once(rows, columns):
    assert sorted(dither_order(rows, columns)) == list(range(rows * columns))


@given(rows=sides, columns=sides, share=st.floats(0.01, 1.0), first=st.integers(0, 200))
@settings(max_examples=80, deadline=None)
def test_every_cell_has_its_turn_and_every_step_as_many(rows, columns, share, first):
    total = rows * columns
    count = max(1, round(share * total))
    steps = -(-total // count)

    turns = [dithered_cells(rows, columns, count, first + step) for step in range(steps)]

    assert all(turn == sorted(set(turn)) and len(turn) == count for turn in turns)
    assert set().union(*turns) == set(range(total))


@given(step=st.integers(0, 40))
@settings(max_examples=20, deadline=None)
def test_a_quarter_of_16_by_16_is_one_cell_of_every_2_by_2_block(step):
    cells = dithered_cells(16, 16, 64, step)

    assert len({(cell // 16 // 2, cell % 16 // 2) for cell in cells}) == 64


@given(
    rows=st.integers(4, 18),
    columns=st.integers(4, 18),
    share=st.floats(0.06, 0.9),
    step=st.integers(0, 50),
)
@settings(max_examples=80, deadline=None)
def test_each_half_of_a_grid_gets_about_its_share(rows, columns, share, step):
    count = max(1, round(share * rows * columns))

    cells = dithered_cells(rows, columns, count, step)

    upper = sum(cell // columns < rows // 2 for cell in cells)
    expected = count * (rows // 2) / rows
    assert abs(upper - expected) <= 2 + 0.25 * count


def test_full_passes_are_spread_evenly():
    assert [step for step in range(12) if is_full_pass(step, 0.25)] == [3, 7, 11]
    assert not any(is_full_pass(step, 0.0) for step in range(12))
    assert all(is_full_pass(step, 1.0) for step in range(12))
    assert sum(is_full_pass(step, 0.206) for step in range(1000)) == 206


def test_hand_computed_raters_are_the_words_that_match_the_image():
    visual = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0]])
    text = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 2.0, 0.0]])

    # Softmax of (8, 0, 0) and of (0, 0, 8); means about .5, 0 and .5 around 1 / 3.
    assert rater_weights(visual, text).tolist() == [0.5, 0.0, 0.5]


def test_one_word_or_equal_words_are_all_raters():
    visual = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))

    assert rater_weights(visual, visual[:1]).tolist() == [1.0]
    torch.testing.assert_close(rater_weights(visual, torch.zeros(3, 4)), torch.full((3,), 1 / 3))


@given(seed=st.integers(0, 5000), words=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_raters_share_all_the_weight_and_include_the_best_word(seed, words):
    generator = torch.Generator().manual_seed(seed)
    visual = torch.randn(9, 6, generator=generator)
    text = torch.randn(words, 6, generator=generator)

    weights = rater_weights(visual, text)

    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert len(set(weights.tolist()) - {0.0}) == 1
    match = (visual @ text.T).softmax(dim=1).mean(dim=0)
    assert weights[match.argmax()] > 0
    assert match[weights > 0].min() >= match[weights == 0].max() if (weights == 0).any() else True


def test_hand_computed_guide_weighs_the_newest_step_most():
    history = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    guide = decayed_guide(history, decay=0.5)

    torch.testing.assert_close(guide, torch.tensor([1.0, 2.0, 4.0]) / 7)


def test_a_history_of_zeros_guides_nowhere_and_stays_finite():
    assert decayed_guide(torch.zeros(3, 4)).tolist() == [0.0] * 4


def test_hand_computed_union_of_both_scores():
    semantic = torch.tensor([0.4, 0.1, 0.3, 0.3, 0.0])
    guide = torch.tensor([0.5, 0.0, 0.0, 0.1, 0.2])

    # Two best by meaning: 0 and 2 (before 3); by action: 0 and 4.
    assert relevant_tokens(semantic, guide, 2).tolist() == [True, False, True, False, True]


@given(seed=st.integers(0, 5000), count=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_union_holds_m_to_2m_tokens_and_the_best_of_either(seed, count):
    generator = torch.Generator().manual_seed(seed)
    semantic, guide = torch.rand(2, 20, generator=generator)

    union = relevant_tokens(semantic, guide, count)

    assert count <= union.sum() <= 2 * count
    for scores in (semantic, guide):
        assert union[scores.topk(count).indices].all()
