"""Stand-ins for dropped tokens."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.pruning.pooling import pool_dropped, pooling_cells

grids = st.lists(st.tuples(st.integers(1, 18), st.integers(1, 18)), min_size=1, max_size=3).map(
    tuple
)


def test_a_grid_of_14_by_14_has_7_by_7_cells_of_four_tokens():
    cells = pooling_cells(((14, 14),))

    assert [cells[0], cells[1], cells[2], cells[14], cells[28], cells[195]] == [0, 0, 1, 0, 7, 48]
    assert all(cells.count(cell) == 4 for cell in range(49))


def test_16_tokens_along_a_side_are_cut_into_7_cells_of_2_or_3():
    cells = pooling_cells(((16, 16),))

    assert [cells.count(cell) for cell in range(7)] == [9, 6, 6, 9, 6, 6, 6]


def test_a_cell_is_at_least_two_tokens_wide_and_a_second_camera_has_its_own_cells():
    cells = pooling_cells(((7, 2), (2, 4)))

    # 7 x 2: three cells down, one across; then one down, two across.
    assert cells == (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4)


def test_a_hand_computed_remainder():
    # One row of four tokens in two cells; token 1 is kept.
    cells = torch.tensor(pooling_cells(((2, 4),)))

    share, log_counts, index = pool_dropped(torch.tensor([1]), cells, 2)

    third, quarter = 1 / 3, 1 / 4
    torch.testing.assert_close(
        share,
        torch.tensor(
            [
                [third, 0, 0, 0, third, third, 0, 0],
                [0, 0, quarter, quarter, 0, 0, quarter, quarter],
            ]
        ),
    )
    torch.testing.assert_close(log_counts, torch.tensor([3.0, 4.0]).log())
    # (0 + 4 + 5) / 3 = 3 and (2 + 3 + 6 + 7) / 4 = 4.5, half to even.
    assert index.tolist() == [3, 4]


def test_a_cell_of_which_all_is_kept_stands_for_nothing():
    cells = torch.tensor(pooling_cells(((2, 4),)))

    share, log_counts, index = pool_dropped(torch.tensor([0, 1, 4, 5]), cells, 2)

    assert share[0].tolist() == [0.0] * 8
    assert log_counts[0] == -torch.inf
    assert index.tolist() == [7, 4]


@given(grids=grids)
@settings(max_examples=80, deadline=None)
def test_cells_are_numbered_without_gaps_and_none_is_a_single_token_of_a_larger_grid(grids):
    cells = pooling_cells(grids)

    assert len(cells) == sum(rows * columns for rows, columns in grids)
    assert sorted(set(cells)) == list(range(max(cells) + 1))
    assert max(cells) + 1 <= 49 * len(grids)
    start = 0
    for rows, columns in grids:
        part = cells[start : start + rows * columns]
        start += rows * columns
        smallest = min(part.count(cell) for cell in set(part))
        assert smallest >= min(rows, 2) * min(columns, 2)


@given(seed=st.integers(0, 1000), kept_share=st.floats(0.0, 1.0), grids=grids)
@settings(max_examples=80, deadline=None)
def test_stand_ins_count_every_dropped_token_once_and_conserve_their_sum(seed, kept_share, grids):
    cells = torch.tensor(pooling_cells(grids))
    generator = torch.Generator().manual_seed(seed)
    total = len(cells)
    kept = torch.randperm(total, generator=generator)[: round(kept_share * total)]
    hidden = torch.randn(total, 3, generator=generator, dtype=torch.float64)
    dropped = torch.ones(total, dtype=torch.bool)
    dropped[kept] = False

    share, log_counts, index = pool_dropped(kept, cells, int(cells.max()) + 1)

    counts = log_counts.exp().double()
    torch.testing.assert_close(
        (counts[:, None] * (share.double() @ hidden)).sum(dim=0),
        hidden[dropped].sum(dim=0),
        atol=1e-4,
        rtol=1e-4,
    )
    assert round(counts.sum().item()) == total - len(kept)
    assert ((index >= 0) & (index < total)).all()
