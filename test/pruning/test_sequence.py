"""Where everything stands in a sequence."""

import pytest

from safe_vla_ros.pruning import SequenceLayout

PARALLEL = SequenceLayout(33, slice(1, 21), (12, 8), 32, slice(26, 32))
AUTOREGRESSIVE = SequenceLayout(27, slice(1, 21), (20,), 26, slice(26, 27), causal=True)
PREFIX = SequenceLayout(30, slice(0, 20), (10, 10), 29, None)


def test_text_lies_between_the_visual_tokens_and_the_placeholders():
    assert PARALLEL.rows('text') == slice(21, 26)


def test_without_placeholders_text_goes_to_the_end():
    assert AUTOREGRESSIVE.rows('text') == slice(21, 27)
    assert PREFIX.rows('text') == slice(20, 30)


def test_rows_of_another_module_give_way_to_the_last_where_the_answer_is_needed_early():
    assert PREFIX.rows('action') is None
    assert PREFIX.early('action') == 'last'
    assert PARALLEL.early('action') == 'action'


def test_tokens_per_camera_must_add_up():
    with pytest.raises(ValueError, match=r'20 visual tokens, but \(12, 9\) tokens per camera'):
        SequenceLayout(33, slice(1, 21), (12, 9), 32, slice(26, 32))


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no rows are called 'first'"):
        PARALLEL.rows('first')


def test_rows_behind_the_visual_tokens_move_up_by_those_that_left():
    assert PARALLEL.place(slice(26, 32), 20) == slice(13, 19)
    assert PARALLEL.place(slice(0, 1), 20) == slice(0, 1)
    assert PARALLEL.place(slice(20, 26), 33) == slice(20, 26)
    with pytest.raises(ValueError, match=r'rows 20\.\.25 hold visual tokens \(1\.\.20\)'):
        PARALLEL.place(slice(20, 26), 20)
