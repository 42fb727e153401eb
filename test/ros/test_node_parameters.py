"""Parameters over the parameter services: one by one, together, and at the start."""

from __future__ import annotations

import array

import pytest
import yaml
from node_bench import moves, values_of
from rcl_interfaces.srv import ListParameters, SetParameters
from rclpy.parameter import Parameter, parameter_dict_from_yaml_file

from safe_vla_ros.ros.parameters import names_given_at_the_start
from safe_vla_ros.runtime.parameters import PARAMETERS, Change


def refusal(result):
    assert not result.successful
    return result.reason


@pytest.fixture
def configured(robot):
    assert robot.transition('configure')
    return robot


def test_every_parameter_is_described(robot):
    descriptors = robot.describe(*PARAMETERS)
    for parameter, shown in zip(PARAMETERS.values(), descriptors, strict=True):
        assert shown.description.startswith(parameter.description)
        assert shown.read_only == (parameter.change is Change.READ_ONLY)
        assert parameter.allowed in shown.additional_constraints
        has_range = bool(shown.integer_range or shown.floating_point_range)
        bounded = parameter.minimum is not None or parameter.above is not None
        assert has_range == (bounded and not parameter.is_array)


def test_configure_shows_the_policys_own_values(configured):
    names = ['cameras', 'execute_steps', 'action_period_s', 'pruning.layer', 'workspace_min']
    assert configured.get(*names) == [['front', 'wrist'], 4, 0.05, 2, []]


ONE_BY_ONE = [
    ('max_linear_speed', -1.0, 'must be above 0 and at most 10 m/s'),
    ('max_linear_speed', 1, 'write 1.0'),
    ('max_linear_speed', 'fast', 'must be a double'),
    ('pruning.keep_ratio', 0.0, 'must be 0.05 to 1'),
    ('pruning.method', 'magic', 'must be one of safe, none'),
    ('pruning.layer', 8, 'must be 1 to 7'),
    ('pruning.refresh_layer', 2, 'below pruning.layer = 2'),
    ('pruning.forecast_layers', [9], 'must be 0 to 7'),
    ('execute_steps', 9, 'must be 1 to 8'),
    ('blend_steps', 0, 'must be 1 to the chunk size'),
    ('workspace_min', [0.0, 0.0, 0.0], 'needs workspace_max too'),
    ('observation_timeout_s', 0.0, 'must be above 0'),
    ('saliency.alpha', 2.0, 'must be 0 to 1'),
    ('cameras', ['a', 'b'], 'only while the node is unconfigured'),
    ('dry_run', True, 'only while the node is unconfigured'),
    ('policy', 'other', 'read-only'),
]


def test_bad_value_is_refused_alone_by_name_and_changes_nothing(configured):
    before = configured.get(*PARAMETERS_WITH_VALUES)
    for name, value, reason in ONE_BY_ONE:
        (result,) = configured.set_one_by_one(**{name.replace('.', '__'): value})
        assert refusal(result).startswith(name)
        assert reason in result.reason
    assert configured.get(*PARAMETERS_WITH_VALUES) == before


PARAMETERS_WITH_VALUES = ['max_linear_speed', 'pruning.keep_ratio', 'pruning.layer', 'cameras']

TOGETHER = [
    ({'pruning__layer': 3, 'pruning__refresh_layer': 3}, 'pruning.refresh_layer'),
    ({'workspace_min': [0.0, 0.0, 0.0], 'workspace_max': [1.0, 1.0, 0.0]}, 'workspace_min'),
    ({'max_linear_speed': 0.3, 'pruning__keep_ratio': 2.0}, 'pruning.keep_ratio'),
    ({'max_linear_speed': 0.3, 'no_such_parameter': 2.0}, ''),
]


def test_bad_combination_is_refused_whole(configured):
    before = configured.get(*PARAMETERS_WITH_VALUES)
    for values, name in TOGETHER:
        assert name in refusal(configured.set_atomically(**values))
        assert configured.get(*PARAMETERS_WITH_VALUES) == before


def test_fusion_that_does_not_fit_the_forecast_layers_is_refused_live(configured):
    assert configured.set_atomically(pruning__forecast_layers=[7]).successful
    names = ['pruning.fusion', 'pruning.forecast_layers']
    (result,) = configured.set_one_by_one(pruning__fusion='reference')
    assert refusal(result) == (
        'pruning.forecast_layers = [7]: the first layer must be 0 with pruning.fusion = reference, '
        'or leave it unset'
    )
    assert configured.get(*names) == ['paper', [7]]
    unset = Parameter('pruning.forecast_layers', Parameter.Type.INTEGER_ARRAY, [])
    together = {'pruning__fusion': 'reference', 'pruning__forecast_layers': unset}
    assert configured.set_atomically(**together).successful
    assert configured.set_atomically(pruning__fusion='paper').successful


def test_good_combination_takes_effect_whole_while_moving(bench, robot):
    robot.start_moving()
    box = {'workspace_min': [-1.0, -1.0, -1.0], 'workspace_max': [1.0, 1.0, 1.0]}
    change = {
        'max_linear_speed': 0.05,
        'pruning__keep_ratio': 0.5,
        'pruning__method': 'none',
        **box,
    }
    assert robot.set_atomically(**change).successful
    robot.next('twist', lambda m: abs(m.twist.linear.x - 0.05) < 1e-9)
    robot.next('inference', lambda m: values_of(m.status[1])['method'] == 'none')
    assert bench.policy.prunings[-1].keep_ratio == 0.5
    empty = {name: Parameter(name, Parameter.Type.DOUBLE_ARRAY, []) for name in box}
    back = {'max_linear_speed': 0.25, 'pruning__keep_ratio': 0.25, 'pruning__method': 'safe'}
    assert robot.set_atomically(**back, **empty).successful
    robot.next('twist', lambda m: m.twist.linear.x > 0.06)


def test_a_value_of_the_policy_follows_what_it_depends_on(bench, robot):
    assert robot.transition('configure')
    assert robot.get('pruning.max_staleness') == [0.02]
    assert robot.set_atomically(pruning__keep_ratio=0.5).successful
    assert robot.get('pruning.max_staleness') == [0.01]
    assert robot.transition('activate')
    robot.move()
    assert bench.policy.prunings[-1].max_staleness == 0.01
    assert robot.set_one_by_one(pruning__keep_ratio=0.25)[0].successful
    assert robot.get('pruning.keep_ratio', 'pruning.max_staleness') == [0.25, 0.02]


def test_workspace_takes_away_the_outward_motion_only(robot):
    robot.start_moving()
    box = {'workspace_min': [-1.0, -1.0, -1.0], 'workspace_max': [0.4, 1.0, 1.0]}
    assert robot.set_atomically(**box).successful
    robot.next('twist', lambda m: not moves(m))
    assert robot.task('control', lambda s: 'workspace' in s.message).level == b'\x01'
    assert robot.set_atomically(workspace_max=[0.3, 1.0, 1.0]).successful
    robot.wait_state('failed', 'outside the workspace', after=0)
    empty = {name: Parameter(name, Parameter.Type.DOUBLE_ARRAY, []) for name in box}
    assert robot.set_atomically(**empty).successful
    assert robot.reset().success
    robot.next('twist', moves)


def test_what_is_fixed_while_configured_may_change_before(robot):
    assert robot.set_atomically(command_frame='world', control_rate_hz=20.0).successful
    assert robot.transition('configure')
    assert robot.set_atomically(command_frame='world').successful
    assert not robot.set_atomically(command_frame='base_link').successful
    assert robot.transition('cleanup')
    assert robot.set_atomically(command_frame='base_link', control_rate_hz=50.0).successful


@pytest.mark.parametrize(
    ('overrides', 'sentence'),
    [
        ({'control_rate_hz': 50}, 'control_rate_hz = 50: is an integer, write 50.0'),
        ({'pruning__keep_ratio': 3.0}, 'pruning.keep_ratio = 3.0: must be 0.05 to 1'),
        ({'workspace_min': [1.0, 2.0]}, 'exactly 3 are needed'),
        ({'workspace_min': [0.0, 0.0, 0.0]}, 'needs workspace_max too'),
    ],
)
def test_bad_value_at_the_start_fails_configure_and_can_be_mended(start_node, overrides, sentence):
    with start_node(**overrides) as bench:
        robot = bench.robot
        assert not robot.transition('configure')
        robot.next(
            'log', lambda m: m.msg.startswith('configure failed') and sentence in m.msg, after=0
        )
        assert robot.lifecycle_state() == 'unconfigured'
        good = {'control_rate_hz': 50.0, 'pruning__keep_ratio': 0.5, 'workspace_min': [0.0] * 3}
        name = next(iter(overrides))
        values = {name: good[name]}
        if name == 'workspace_min':
            values['workspace_max'] = [1.0] * 3
        assert robot.set_atomically(**values).successful
        assert robot.transition('configure')


def test_misspelt_parameter_at_the_start_fails_configure(start_node):
    with start_node(max_linear_sped=0.1) as bench:
        robot = bench.robot
        sentence = 'max_linear_sped is not a parameter of this node; did you mean max_linear_speed?'
        assert not robot.transition('configure')
        robot.wait_log(f'configure failed: {sentence}')
        assert robot.set_atomically(allow_unknown_parameters=True).successful
        assert robot.transition('configure')


def test_unknown_parameters_of_a_shared_file_are_told_and_ignored_when_allowed(start_node):
    with start_node(gain=0.1, allow_unknown_parameters=True) as bench:
        bench.robot.wait_log('ignored: gain is not a parameter of this node')
        assert bench.robot.transition('configure')


def test_parameters_that_ros_itself_takes_are_not_unknown(start_node):
    own = {
        'use_sim_time': False,
        'start_type_description_service': True,
        'qos_overrides./image.subscription.depth': 2,
    }
    with start_node(**own) as bench:
        assert bench.robot.transition('configure')


def test_unknown_parameters_are_not_found_where_rclpy_does_not_tell_what_was_given():
    assert names_given_at_the_start(object()) == []


def test_a_huge_number_at_the_start_or_later_is_refused_in_a_short_sentence(start_node):
    huge = {'max_linear_speed': 1e40, 'gripper__open_value': float('inf')}
    with start_node(**huge, action__linear_scale_m=1e300) as bench:
        assert not bench.robot.transition('configure')
        bench.robot.wait_log('max_linear_speed = 1e+40: must be above 0 and at most 10 m/s')
        bench.robot.wait_log('gripper.open_value = inf: must be a finite number other than')
        (result,) = bench.robot.set_one_by_one(execute_steps=2**62)
        assert refusal(result) == f'execute_steps = {2**62}: must be 1 to the chunk size'


def dump(robot):
    """Read every parameter as `ros2 param dump` does: list the names, then get all of them."""
    request = ListParameters.Request(depth=ListParameters.Request.DEPTH_RECURSIVE)
    names = sorted(robot.call(ListParameters, 'list_parameters', request).result.names)
    values = robot.get(*names)
    pairs = zip(names, values, strict=True)
    shown = {n: list(v) if isinstance(v, array.array) else v for n, v in pairs}
    return {name: value for name, value in shown.items() if not name.startswith('qos_overrides.')}


def test_a_dump_loaded_into_a_fresh_node_restores_every_parameter(start_node, tmp_path):
    file = tmp_path / 'dump.yaml'
    changes = {
        'workspace_min': [-1.0, -1.0, -1.0],
        'workspace_max': [1.0, 1.0, 1.0],
        'pruning__method': 'none',
        'pruning__layer': 3,
        'pruning__refresh_layer': 1,
        'max_linear_speed': 0.125,
    }
    with start_node(command_frame='world', instruction='go') as bench:
        assert dump(bench.robot)['command_frame'] == 'world'
        assert bench.robot.transition('configure')
        assert bench.robot.set_atomically(**changes).successful
        saved = dump(bench.robot)
    assert saved['pruning.refresh_layer'] == 1
    assert saved['cameras'] == ['front', 'wrist']
    file.write_text(yaml.dump({'/pruned_policy': {'ros__parameters': saved}}))
    with start_node() as bench:
        node = ['/pruned_policy']
        loaded = list(parameter_dict_from_yaml_file(str(file), target_nodes=node).values())
        request = SetParameters.Request(parameters=loaded)
        results = bench.robot.call(SetParameters, 'set_parameters', request).results
        refused = {p.name for p, r in zip(loaded, results, strict=True) if not r.successful}
        fixed = {d.name for d in bench.robot.describe(*saved) if d.read_only}
        assert refused == fixed >= {'policy', 'unnorm_key'}
        assert bench.robot.transition('configure')
        assert dump(bench.robot) == saved


def test_bad_qos_override_fails_configure_and_leaves_no_topic_behind(start_node):
    with start_node() as bench:
        robot = bench.robot
        topic = f'{robot.name}/saliency/wrist/image_raw/compressed'
        bench.node.declare_parameter(f'qos_overrides.{topic}.publisher.reliability', 'perhaps')
        assert not robot.transition('configure')
        robot.wait_log('Unexpected QoS override for policy `reliability`: `perhaps`')
        twist, image = f'{robot.name}/ee_twist', robot.images['front'].topic_name
        robot.wait(
            lambda: (
                not robot.node.count_publishers(twist) and not robot.node.count_subscribers(image)
            ),
            'the end of the topics',
        )
