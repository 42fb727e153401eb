"""Rows are sorted as numbers, which NumPy does without Python's lock."""

import numpy as np
import pytest

from safe_vla_ros.sim.mesh_decimation import _row_numbers


@pytest.mark.parametrize('shape', [(0, 3), (1, 3), (500, 3)])
def test_numbers_of_rows_are_in_the_order_of_the_rows(shape):
    rows = np.random.default_rng(0).integers(-6, 7, shape)
    numbers = _row_numbers(rows)
    for option in ('return_index', 'return_inverse'):
        _, expected = np.unique(rows, axis=0, **{option: True})
        _, found = np.unique(numbers, **{option: True})
        np.testing.assert_array_equal(found, expected.reshape(-1))
