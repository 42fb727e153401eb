"""Stages for the rows of the fault table, and the document that a whole run writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_report import report
from fault_stage import Stage


def pytest_addoption(parser):
    parser.addoption('--fault-report', help='write what every row showed to this Markdown file')


class Stages:
    """One stage at a time; rows with the same parameters share it."""

    def __init__(self):
        self._stage = None

    def of(self, row):
        """Return a stage for a row, with an unconfigured node."""
        stage = self._stage
        same = stage is not None and (stage.parameters, stage.simulated) == (
            row.parameters,
            row.simulated,
        )
        if row.fresh or not same:
            self.close()
            self._stage = Stage(row.parameters, simulated=row.simulated)
        return self._stage

    def close(self):
        if self._stage is not None:
            self._stage.close()
        self._stage = None


@pytest.fixture(scope='module')
def stages():
    # A node that outlives its rows would go on talking on the topics of other tests.
    stages = Stages()
    yield stages
    stages.close()


@pytest.fixture(scope='session')
def fault_results(request):
    """What each row showed, by its name."""
    results = {}
    yield results
    path = request.config.getoption('--fault-report', None)
    if path:
        Path(path).write_text(report(results), encoding='utf-8')
