"""Every row of the fault table, over DDS, with the node in a process of its own."""

from __future__ import annotations

import pytest
from fault_table import ROWS, Commands


@pytest.mark.parametrize(
    'row',
    [pytest.param(row, id=row.fault, marks=() if row.core else pytest.mark.slow) for row in ROWS],
)
def test_fault(row, stages, fault_results):
    if row.unknown_parameters:
        reason = f'the node has no parameter {", ".join(row.unknown_parameters)}'
        fault_results[row.fault] = f'not run: {reason}'
        pytest.skip(reason)
    fault_results[row.fault] = 'FAILED'
    stage = stages.of(row)
    try:
        fault_results[row.fault] = row.run(stage)
    except BaseException:
        stages.close()
        raise
    if row.commands in {Commands.LEAVES, Commands.DIES} or row.shared_name:
        stages.close()
