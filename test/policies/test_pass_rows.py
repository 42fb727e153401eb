"""The rows in the stream of a pass."""

import pytest
import torch

from safe_vla_ros.policies.pass_rows import PassRows
from safe_vla_ros.pruning import Selection, SequenceLayout, StandIns

# begin | 8 visual | 2 text | 3 actions | stop
FACTS = {
    'length': 15,
    'visual': slice(1, 9),
    'tokens_per_camera': (5, 3),
    'last_row': 14,
    'action_rows': slice(11, 14),
}


def make_rows(*, context=False, **change):
    hidden = torch.arange(15.0)[None, :, None].expand(1, 15, 2).contiguous()
    layout = SequenceLayout(**{**FACTS, **change})
    return PassRows(hidden, (10 * hidden, -hidden), layout, context=context)


def kept(*indices):
    return Selection(torch.tensor(indices))


def test_rows_leave_and_everything_that_has_one_entry_per_row_follows():
    rows = make_rows()

    rows.narrow(kept(0, 3, 6))

    expected = [0, 1, 4, 7, 9, 10, 11, 12, 13, 14]
    assert rows.positions.tolist() == expected
    assert rows.hidden[0, :, 0].tolist() == expected
    assert rows.rotary[0][0, :, 0].tolist() == [10 * position for position in expected]
    assert (rows.count, rows.keys, rows.columns, rows.mask) == (10, 10, slice(1, 4), None)


def test_a_later_selection_names_tokens_by_their_first_index():
    rows = make_rows()
    rows.narrow(kept(0, 3, 5, 6))

    rows.narrow(kept(3, 6))

    expected = [0, 4, 7, 9, 10, 11, 12, 13, 14]
    assert rows.positions.tolist() == expected
    assert rows.hidden[0, :, 0].tolist() == expected
    assert rows.kept.tolist() == [3, 6]


def test_query_rows_are_found_wherever_they_stand_now():
    rows = make_rows()
    assert rows.query_rows('action') == slice(11, 14)

    rows.narrow(kept(2))

    places = {name: rows.query_rows(name) for name in ('action', 'last', 'text', 'all')}
    assert places['action'] == slice(4, 7)
    assert places['last'] == slice(7, 8)
    assert places['text'] == slice(2, 4)
    assert places['all'] == slice(0, 8)


def test_rows_of_another_module_are_not_found():
    rows = make_rows(action_rows=None)

    assert rows.query_rows('action') is None
    assert rows.query_rows('text') == slice(9, 15)


def test_saliency_of_the_kept_is_spread_and_the_gone_have_none():
    rows = make_rows()
    rows.narrow(kept(1, 4))

    assert rows.spread(torch.tensor([0.5, 0.25])).tolist() == [0, 0.5, 0, 0, 0.25, 0, 0, 0]


def test_with_a_context_every_key_stays_and_a_causal_row_sees_what_stands_before_it():
    rows = make_rows(context=True, causal=True)
    assert rows.mask is None

    rows.narrow(kept(2, 5))

    assert (rows.count, rows.keys, rows.columns) == (9, 15, slice(1, 9))
    seen = rows.mask[0, 0]
    assert seen.shape == (9, 15)
    assert seen.sum(dim=1).tolist() == [position + 1 for position in rows.positions.tolist()]
    assert rows.spread(torch.arange(8.0)).tolist() == list(range(8))


def test_with_a_context_and_no_causality_there_is_no_mask():
    rows = make_rows(context=True)

    rows.narrow(kept(2, 5))

    assert rows.mask is None


@pytest.mark.parametrize('causal', [False, True])
def test_stand_ins_are_means_behind_the_kept_with_a_bias_on_their_keys(causal):
    rows = make_rows(causal=causal)
    weights = torch.zeros(2, 8)
    weights[0, [1, 3]] = 0.5  # hidden states 2 and 4
    ins = StandIns(weights, torch.tensor([2.0, 1.0]).log(), torch.tensor([3, 7]))
    ins.log_counts[1] = -torch.inf

    rows.narrow(Selection(torch.tensor([0, 2]), ins))

    assert rows.positions.tolist() == [0, 1, 3, 4, 8, 9, 10, 11, 12, 13, 14]
    assert rows.hidden[0, :, 0].tolist() == [0, 1, 3, 3, 0, 9, 10, 11, 12, 13, 14]
    assert rows.rotary[0][0, :, 0].tolist() == [10 * p for p in rows.positions.tolist()]
    assert rows.columns == slice(1, 3)
    assert rows.query_rows('action') == slice(7, 10)
    last = rows.mask[0, 0, -1]
    assert last[3] == pytest.approx(torch.tensor(2.0).log())
    assert last[4] == -torch.inf
    assert not last[:3].any()
    first = rows.mask[0, 0, 0]
    assert torch.isinf(first[1:]).all() == causal


def test_stand_ins_and_a_context_exclude_each_other():
    rows = make_rows(context=True)
    ins = StandIns(torch.zeros(1, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64))

    with pytest.raises(ValueError, match='exclude each other'):
        rows.narrow(Selection(torch.tensor([0]), ins))
