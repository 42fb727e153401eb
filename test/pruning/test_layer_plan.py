"""Layers that a pruner reads, and that settings which resolve can be pruned with."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning import PRUNER_NAMES, SequenceLayout, StepInput, make_episode, make_pruner
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.types import PolicySpec, PruningSettings


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
        ({'layer': 0}, 'pruning.layer = 0: must be 1 to 7, the decoder has 8 layers'),
        ({'layer': 8}, 'pruning.layer = 8: must be 1 to 7, the decoder has 8 layers'),
        ({'refresh_layer': 3}, 'pruning.refresh_layer = 3: must be 0 to 2, below pruning.layer'),
        ({'fusion': 'sum'}, "pruning.fusion = 'sum': must be one of paper, reference"),
        ({'query_rows': 'all'}, "pruning.query_rows = 'all': must be one of action, last"),
        ({'forecast_layers': (8,)}, 'pruning.forecast_layers = [8]: must be 0 to 7'),
        ({'forecast_layers': (7, 7)}, 'pruning.forecast_layers = [7, 7]: layers must differ'),
        (
            {'fusion': 'reference', 'forecast_layers': (3, 5)},
            'pruning.forecast_layers = [3, 5]: the first layer must be 0 with pruning.fusion',
        ),
        (
            {'fusion': 'reference', 'refresh_layer': 2},
            'pruning.refresh_layer = 2: must be 0 or unset with pruning.fusion = reference',
        ),
    ],
)
def test_a_layer_or_name_that_does_not_fit_is_refused(change, sentence):
    with pytest.raises(ParameterError, match=re.escape(sentence)):
        plan_layers(PruningSettings(**change), 8)


def small_spec(num_layers, pruning):
    return PolicySpec(
        name='model',
        kind='mini',
        cameras=('front',),
        num_cameras=1,
        chunk_size=4,
        num_layers=num_layers,
        action_period_s=0.1,
        execute_steps=2,
        linear_scale_m=1.0,
        angular_scale_rad=1.0,
        rotation='axis_angle',
        frame='base',
        gripper_open_value=1.0,
        gripper_closed_value=0.0,
        pruning=pruning,
    )


layer_numbers = st.integers(0, 5)
layer_settings = st.fixed_dictionaries(
    {},
    optional={
        'method': st.sampled_from(PRUNER_NAMES),
        'keep_ratio': st.floats(0.05, 1.0),
        'layer': layer_numbers,
        'fusion': st.sampled_from(['paper', 'reference']),
        'query_rows': st.sampled_from(['action', 'last']),
        'refresh_layer': layer_numbers,
        'forecast_layers': st.lists(layer_numbers, max_size=3),
    },
)


@settings(max_examples=300)
@given(st.integers(1, 5), layer_settings, layer_settings)
def test_every_pruner_begins_with_whatever_resolves(num_layers, own, chosen):
    values = {f'pruning.{name}': value for name, value in chosen.items()}
    try:
        resolved = resolve(values, small_spec(num_layers, own), pruner_names=PRUNER_NAMES)
    except ParameterError:
        return
    layout = SequenceLayout(6, slice(0, 4), (4,), 5, slice(4, 5))
    step = StepInput(torch.eye(6), layout, num_layers, resolved.pruning, 0.0)
    for name in PRUNER_NAMES:
        make_pruner(name).begin(step, make_episode())
