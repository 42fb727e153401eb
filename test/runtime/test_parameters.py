"""Parameters are checked whole, against each other and against the policy."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.runtime.parameter_combinations import without_effect
from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.runtime.parameters import (
    PARAMETERS,
    Change,
    check_values,
    markdown_table,
    resolve,
)
from safe_vla_ros.types import PolicySpec

CONFIG = Path(__file__).parents[2] / 'config'
SPEC = PolicySpec(
    name='model',
    kind='mini',
    cameras=('corner', 'gripper'),
    num_cameras=2,
    chunk_size=8,
    num_layers=8,
    action_period_s=0.05,
    execute_steps=4,
    proprio_layout=('ee_position', 'gripper_joints'),
    linear_scale_m=0.04,
    angular_scale_rad=1.0,
    rotation='axis_angle',
    frame='base',
    gripper_open_value=-1.0,
    gripper_closed_value=1.0,
    gripper_joint_names=('left', 'right'),
    limits={'max_linear_speed': 0.4, 'max_linear_accel': 2},
    pruning={'layer': 2, 'refresh_threshold': 0.6, 'forecast_layers': [6, 7]},
)


def test_policys_own_value_beats_the_default_and_the_users_beats_both():
    resolved = resolve(
        {'max_linear_accel': 1.5, 'cameras': ['a', 'b'], 'control_rate_hz': 20.0}, SPEC
    )
    assert resolved.control.control_rate_hz == 20.0
    assert resolved.control.limits.max_linear_speed == 0.4
    assert resolved.control.limits.max_linear_accel == 1.5
    assert resolved.control.limits.max_angular_speed == 0.8
    assert resolved.policy.cameras == ('a', 'b')
    assert resolved.pruning.layer == 2
    assert resolved.pruning.forecast_layers == (6, 7)
    assert resolved.pruning.keep_ratio == 0.25
    assert resolved.control.execute_steps == 4


def test_every_value_in_force_is_told():
    values = resolve({}, SPEC).values
    assert list(values) == list(PARAMETERS)
    unset = {name for name, value in values.items() if value is None}
    optional = {'pruning.refresh_layer', 'pruning.saliency_layers'}
    assert unset == {'workspace_min', 'workspace_max', *optional}


def test_empty_array_means_unset():
    resolved = resolve({'cameras': [], 'workspace_min': [], 'workspace_max': ()}, SPEC)
    assert resolved.policy.cameras == ('corner', 'gripper')
    assert resolved.control.workspace is None


STALENESS = {0.5: 0.01, 0.25: 0.02, 0.125: 0.06, 0.0625: 0.1}


@pytest.mark.parametrize(
    ('given', 'tau'),
    [
        ({}, 0.02),
        ({'pruning.keep_ratio': 0.125}, 0.06),
        ({'pruning.keep_ratio': 0.1875}, 0.04),
        ({'pruning.keep_ratio': 0.9}, 0.01),
        ({'pruning.keep_ratio': 0.05}, 0.1),
        ({'pruning.keep_ratio': 0.125, 'pruning.max_staleness': 0.5}, 0.5),
    ],
)
def test_a_policy_may_have_another_tau_for_every_keep_ratio(given, tau):
    spec = dataclasses.replace(SPEC, pruning={'layer': 2, 'max_staleness': STALENESS})
    assert resolve(given, spec).pruning.max_staleness == pytest.approx(tau)


@pytest.mark.parametrize(
    'table', [{}, {'quarter': 0.1}, {0.25: 'much'}, {0.25: True}, {0.25: None}, {10**400: 0.1}]
)
def test_a_table_without_numbers_is_refused(table):
    spec = dataclasses.replace(SPEC, pruning={'layer': 2, 'max_staleness': table})
    with pytest.raises(ParameterError, match=r'policy model: pruning\.max_staleness'):
        resolve({}, spec)


def test_a_value_of_a_table_must_be_allowed():
    spec = dataclasses.replace(SPEC, pruning={'layer': 2, 'max_staleness': {0.25: 2.0}})
    with pytest.raises(ParameterError, match=r'policy model: pruning\.max_staleness = 2'):
        resolve({}, spec)


def test_only_some_values_may_be_tables():
    spec = dataclasses.replace(SPEC, pruning={'layer': 2, 'refresh_threshold': {0.25: 0.5}})
    with pytest.raises(ParameterError, match=r'policy model: pruning\.refresh_threshold'):
        resolve({}, spec)


def test_whatever_policy_and_user_leave_out_is_named_at_once():
    bare = PolicySpec('bare', 'openvla_oft', ('cam',), 1, 8, 32, unnorm_keys=('a', 'b'))
    with pytest.raises(ParameterError) as caught:
        resolve({}, bare)
    for name in ('action.linear_scale_m', 'action.rotation', 'gripper.open_value', 'execute_steps'):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ('keys', 'key', 'chosen'), [((), '', ''), (('a',), '', 'a'), (('a', 'b'), 'b', 'b')]
)
def test_statistics_are_chosen_when_there_is_no_doubt(keys, key, chosen):
    spec = dataclasses.replace(SPEC, unnorm_keys=keys)
    assert resolve({'unnorm_key': key}, spec).policy.unnorm_key == chosen


@pytest.mark.parametrize(('keys', 'key'), [((), 'a'), (('a', 'b'), ''), (('a', 'b'), 'c')])
def test_statistics_that_the_checkpoint_lacks_are_refused(keys, key):
    with pytest.raises(ParameterError, match='unnorm_key'):
        resolve({'unnorm_key': key}, dataclasses.replace(SPEC, unnorm_keys=keys))


OUT_OF_RANGE = [
    ('control_rate_hz', 0.5, '1 to 200 Hz'),
    ('control_rate_hz', 50, 'write 50.0'),
    ('control_rate_hz', math.nan, '1 to 200 Hz'),
    ('control_rate_hz', '50', 'must be a double'),
    ('action_period_s', 0.0, '0.005 to 1 s'),
    ('execute_steps', 0, '1 to the chunk size'),
    ('execute_steps', 2.0, 'must be a int'),
    ('execute_steps', True, 'must be a int'),
    ('blending', 'linear', 'none, crossfade, ensemble, cogact_ensemble'),
    ('blend_steps', 0, '1 to the chunk size'),
    ('observation_timeout_s', 0.0, 'above 0'),
    ('observation_timeout_s', math.inf, 'above 0'),
    ('max_consecutive_failures', 21, '1 to 20'),
    ('max_linear_speed', -0.1, 'above 0'),
    ('workspace_min', [0.0, 0.0], 'exactly 3'),
    ('workspace_min', [0.0, 0.0, math.nan], 'each below'),
    ('workspace_min', 0.0, 'array'),
    ('pruning.keep_ratio', 0.01, '0.05 to 1'),
    ('pruning.keep_ratio', 1.5, '0.05 to 1'),
    ('pruning.fusion_weight', -0.5, '0 to 1'),
    ('pruning.refresh_threshold', 1.5, '-1 to 1'),
    ('pruning.layer', 0, '1 to the number'),
    ('pruning.forecast_layers', [-1], '0 to the number'),
    ('pruning.forecast_layers', [7, 7], 'differ'),
    ('pruning.fusion', 'sum', 'paper, reference'),
    ('saliency.alpha', 1.1, '0 to 1'),
    ('device', 'tpu', 'auto, cpu, cuda'),
    ('dry_run', 'yes', 'true or false'),
    ('cameras', ['a', 'a'], 'differ'),
    ('cameras', ['/a', 'b'], 'relative topic name'),
    ('cameras', ['ä', 'b'], 'relative topic name'),
    ('cameras', 'ab', 'array'),
    ('proprio.layout', ['elbow'], 'allowed are ee_position'),
    ('command_frame', ' ', 'must not be empty'),
    ('max_linear_sped', 0.1, 'did you mean max_linear_speed'),
]


@pytest.mark.parametrize(('name', 'value', 'allowed'), OUT_OF_RANGE)
def test_one_bad_value_is_refused_with_its_name_and_what_is_allowed(name, value, allowed):
    for check in (check_values, lambda values: resolve(values, SPEC)):
        with pytest.raises(ParameterError) as caught:
            check({name: value})
        assert str(caught.value).startswith(name)
        assert allowed in str(caught.value)


BAD_COMBINATIONS = [
    ({'workspace_min': [0.0, 0.0, 0.0], 'workspace_max': [1.0, 0.0, 1.0]}, 'below'),
    ({'gripper.open_value': 1.0, 'gripper.closed_value': 1.0}, 'differ'),
    ({'pruning.layer': 2, 'pruning.refresh_layer': 2}, 'below pruning.layer = 2'),
    ({'pruning.fusion': 'reference', 'pruning.forecast_layers': [31]}, r'forecast_layers = \[31\]'),
    ({'pruning.fusion': 'reference', 'pruning.forecast_layers': [6]}, 'first layer must be 0'),
    ({'pruning.fusion': 'reference', 'pruning.refresh_layer': 1}, 'must be 0 or unset'),
]
BAD_FOR_THE_POLICY = [
    ({'pruning.fusion': 'reference'}, r'forecast_layers = \[6, 7\]: the first layer must be 0'),
    ({'workspace_min': [0.0, 0.0, 0.0]}, 'needs workspace_max'),
    ({'workspace_max': [0.0, 0.0, 0.0]}, 'needs workspace_min'),
    ({'gripper.open_value': 1.0}, 'differ'),
    ({'pruning.layer': 8}, '1 to 7'),
    ({'pruning.refresh_layer': 2}, '0 to 1'),
    ({'pruning.forecast_layers': [8]}, '0 to 7'),
    ({'execute_steps': 9}, '1 to 8'),
    ({'blend_steps': 9}, '1 to 8'),
    ({'cameras': ['a']}, 'exactly 2'),
    ({'pruning.method': 'magic'}, 'safe, none'),
]


@pytest.mark.parametrize(('values', 'allowed'), BAD_COMBINATIONS)
def test_bad_combination_is_refused_before_the_policy_is_known(values, allowed):
    with pytest.raises(ParameterError, match=allowed):
        check_values(values)


@pytest.mark.parametrize(('values', 'allowed'), BAD_COMBINATIONS + BAD_FOR_THE_POLICY)
def test_bad_combination_is_refused_with_the_policy(values, allowed):
    with pytest.raises(ParameterError, match=allowed):
        resolve(values, SPEC, pruner_names=('safe', 'none'))


def test_half_of_a_combination_waits_for_the_policy():
    assert check_values({'workspace_min': [0.0, 0.0, 0.0]}) == {'workspace_min': (0.0, 0.0, 0.0)}


def test_gripper_joints_in_the_layout_need_names():
    with pytest.raises(ParameterError, match=r'gripper\.joint_names'):
        resolve({}, dataclasses.replace(SPEC, gripper_joint_names=()))


@pytest.mark.parametrize(
    ('layout', 'joints', 'takes', 'complaint'),
    [
        (['ee_position'], ['left'], 5, 'makes 3 numbers; policy model takes 5'),
        (['ee_position', 'gripper_joints'], ['left'], 5, "'left'.* makes 4 numbers"),
        (['zero'], ['left'], 0, 'takes none'),
    ],
)
def test_a_layout_of_another_length_is_refused_before_the_weights(layout, joints, takes, complaint):
    spec = dataclasses.replace(SPEC, proprio_dim=takes)
    with pytest.raises(ParameterError, match=complaint):
        resolve({'proprio.layout': layout, 'gripper.joint_names': joints}, spec)
    assert resolve({}, dataclasses.replace(SPEC, proprio_dim=5))


def test_bad_value_of_the_policy_names_the_policy():
    with pytest.raises(ParameterError, match=r'policy model: action\.frame'):
        resolve({}, dataclasses.replace(SPEC, frame='world'))


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('max_linear_speed', 10**40),
        ('max_linear_speed', -(10**400)),
        ('max_linear_speed', 10**5000),
        ('max_linear_speed', float('1e400')),
        ('gripper.open_value', 10**400),
        ('execute_steps', 10**400),
        ('workspace_min', [10**5000] * 3),
        ('hardware_id', 10**5000),
        ('blending', 'x' * 10**6),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 80 else 'huge',
)
def test_a_huge_value_is_refused_in_a_short_sentence(name, value):
    with pytest.raises(ParameterError) as caught:
        resolve({name: value}, SPEC)
    assert str(caught.value).startswith(name)
    assert len(str(caught.value)) < 200


def test_a_huge_number_of_the_policy_is_refused_in_a_short_sentence():
    with pytest.raises(ParameterError, match=r'policy model: max_linear_speed = 10') as caught:
        resolve({}, dataclasses.replace(SPEC, limits={'max_linear_speed': 10**400}))
    assert len(str(caught.value)) < 200


def test_what_ros_itself_takes_is_no_parameter_of_ours():
    given = {'use_sim_time': True, 'qos_overrides./image.subscription.depth': 2}
    assert check_values({**given, 'dry_run': True}) == {'dry_run': True}


def test_unknown_parameters_are_left_out_when_they_are_allowed():
    given = {'gain': 1.0, 'allow_unknown_parameters': True}
    assert resolve(given, SPEC).node.allow_unknown_parameters
    with pytest.raises(ParameterError, match='gain is not a parameter of this node'):
        resolve({**given, 'allow_unknown_parameters': False}, SPEC)


ROBOTS = sorted(file for file in CONFIG.glob('*.yaml') if file.stem != 'diagnostic_aggregator')


@pytest.mark.parametrize('file', ROBOTS, ids=lambda file: file.stem)
def test_every_example_robot_resolves(file):
    values = read_parameter_file(file)
    chunk_size = 1 if 'openvla' in file.stem else 16
    bridge = {'chunk_size': chunk_size, 'num_cameras': 1, 'proprio_layout': ()}
    spec = dataclasses.replace(
        SPEC, num_layers=32, unnorm_keys=(values['unnorm_key'],) if 'unnorm_key' in values else ()
    )
    if 'bridge' in file.stem:
        spec = dataclasses.replace(spec, **bridge)
    assert resolve(values, spec).values['command_frame'] == values['command_frame']


@settings(max_examples=50)
@given(
    st.sampled_from(sorted(PARAMETERS)),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.lists(st.floats() | st.integers() | st.text(max_size=5), max_size=4),
    ),
)
def test_any_value_either_resolves_or_is_refused_by_name(name, value):
    refusal = ''
    try:
        resolve({name: value}, SPEC)
    except ParameterError as error:
        refusal = str(error)
    assert not refusal or name in refusal


def test_only_policy_and_its_statistics_are_read_only():
    read_only = {name for name, p in PARAMETERS.items() if p.change is Change.READ_ONLY}
    assert read_only == {'policy', 'unnorm_key'}


def test_table_has_one_row_per_parameter_with_text_in_every_cell():
    rows = markdown_table().splitlines()[2:]
    assert len(rows) == len(PARAMETERS)
    assert all(cell.strip() for row in rows for cell in row.strip('|').split(' | '))


@pytest.mark.parametrize('method', ['refresh', 'vla_cache'])
def test_a_layer_given_to_a_method_that_drops_nothing_is_said_to_have_no_effect(method):
    sentence = f'pruning.layer = 2 has no effect: {method} drops no tokens from a layer on'

    assert without_effect({'pruning.layer': 2}, method) == [sentence]
    assert without_effect({}, method) == []
    assert without_effect({'pruning.layer': 2}, 'safe') == []


def test_saliency_layers_are_checked_against_the_decoder():
    with pytest.raises(
        ParameterError, match=r'pruning.saliency_layers = \[1, 1\]: layers must dif'
    ):
        check_values({'pruning.saliency_layers': [1, 1]})
    with pytest.raises(ParameterError, match=r'pruning.saliency_layers = \[99\]: must be 0 to'):
        resolve({'pruning.saliency_layers': [99]}, SPEC)
