"""Layers that a pruner reads."""

import re

import pytest

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.pruning.layer_plan import plan_layers
from safe_vla_ros.types import PruningSettings


def test_paper_mode_tests_at_the_shallow_layer_and_forecasts_the_last():
    plan = plan_layers(PruningSettings(layer=3), 8)

    assert (plan.pruning, plan.shallow, plan.refresh) == (3, 2, 2)
    assert plan.remembered == (2, 7)
    assert plan.remembered[plan.averaged] == (7,)


def test_paper_mode_averages_exactly_the_forecast_layers_when_one_of_them_is_the_refresh_layer():
    plan = plan_layers(PruningSettings(layer=3, refresh_layer=1, forecast_layers=(6, 1)), 8)

    assert plan.remembered == (1, 6)
    assert set(plan.remembered[plan.averaged]) == {6, 1}


def test_reference_mode_tests_at_layer_0_and_averages_all_it_remembers():
    plan = plan_layers(PruningSettings(fusion='reference', forecast_layers=(0, 3, 5)), 6)

    assert (plan.refresh, plan.remembered) == (0, (0, 3, 5))
    assert plan.remembered[plan.averaged] == (0, 3, 5)
    assert plan_layers(PruningSettings(fusion='reference'), 32).remembered == (0, 31)


def test_layer_0_is_read_at_the_last_row_because_placeholders_attend_uniformly_there():
    plan = plan_layers(PruningSettings(layer=3), 8)

    assert [plan.rows_at(layer) for layer in (0, 1, 7)] == ['last', 'action', 'action']
    assert plan_layers(PruningSettings(query_rows='last'), 8).rows_at(7) == 'last'


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'layer': 0}, 'pruning.layer is 0, allowed is 1..7'),
        ({'layer': 8}, 'pruning.layer is 8, allowed is 1..7'),
        ({'refresh_layer': 3}, 'pruning.refresh_layer is 3, allowed is 0..2'),
        ({'fusion': 'sum'}, "pruning.fusion is 'sum', allowed is paper or reference"),
        ({'query_rows': 'all'}, "pruning.query_rows is 'all', allowed is action or last"),
        ({'forecast_layers': (8,)}, 'pruning.forecast_layers is [8], allowed is different layers'),
        ({'forecast_layers': (7, 7)}, 'pruning.forecast_layers is [7, 7], allowed is different'),
        (
            {'fusion': 'reference', 'forecast_layers': (3, 5)},
            'pruning.forecast_layers is [3, 5], allowed is different layers in 0..7, the first',
        ),
        (
            {'fusion': 'reference', 'refresh_layer': 2},
            'pruning.refresh_layer is 2, allowed is 0 with fusion reference',
        ),
    ],
)
def test_a_layer_or_name_that_does_not_fit_is_refused(change, sentence):
    with pytest.raises(ParameterError, match=re.escape(sentence)):
        plan_layers(PruningSettings(**change), 8)
