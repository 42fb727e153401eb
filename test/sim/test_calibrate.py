"""Choices of the calibration, from figures."""

import pytest

from safe_vla_ros.sim.calibrate import deep_layers, nearest, smallest_tau
from safe_vla_ros.sim.shadow import ShadowFigures
from safe_vla_ros.types import PruningSettings


def figures(error_mm=1.0, full=0.1, **change):
    settings = PruningSettings(method='refresh', **change)
    return ShadowFigures(settings, 100, full, 0.4, 1e-3 * error_mm, 0.0, None, ())


@pytest.mark.parametrize(
    ('layers', 'sets'),
    [
        (8, [(7,), (6, 7), (4, 5, 6, 7), (2, 3, 4, 5, 6, 7), tuple(range(8))]),
        (2, [(1,), (0, 1)]),
        (1, [(0,)]),
    ],
)
def test_sets_of_layers_begin_with_the_last_and_end_with_all(layers, sets):
    assert deep_layers(layers) == sets


def test_no_set_has_more_than_eight_layers():
    sets = deep_layers(32)
    assert sets[-1] == (0, 4, 9, 13, 18, 22, 27, 31)
    assert max(map(len, sets)) == 8


def test_the_nearest_actions_win_and_the_first_of_equals():
    trials = [figures(2.0, age_weight=0.0), figures(1.0, age_weight=0.1), figures(1.0)]
    assert nearest(trials) == trials[1].settings


def test_the_smallest_tau_within_the_budget_wins():
    trials = [
        figures(full=0.04, max_staleness=0.2),
        figures(full=0.3, max_staleness=0.05),
        figures(full=0.09, max_staleness=0.1),
    ]
    assert smallest_tau(trials, 0.1) == 0.1
    assert smallest_tau(trials, 0.01) == 0.2
    assert smallest_tau([], 0.1) == 0.0
