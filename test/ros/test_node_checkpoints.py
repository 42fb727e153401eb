"""Real policy directories: a good one moves the arm, a broken one fails configure by its name."""

from __future__ import annotations

import json
import pickle

import pytest
from mini_policies import write_untrained_policy
from node_bench import values_of

WEIGHTS = 'model.safetensors'


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    return write_untrained_policy(tmp_path_factory.mktemp('policies') / 'untrained')


@pytest.fixture
def broken(good, tmp_path):
    for path in good.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def start(start_node):
    from safe_vla_ros.ros.policy_source import RegisteredPolicies

    return lambda directory, **values: start_node(
        policies=RegisteredPolicies(), policy=str(directory), **values
    )


def forget_config(directory):
    (directory / 'config.json').unlink()
    return 'config.json is missing'


def forget_weights(directory):
    (directory / WEIGHTS).unlink()
    return WEIGHTS


def widen(directory):
    path = directory / 'config.json'
    config = json.loads(path.read_text())
    config['hidden_size'] *= 2
    path.write_text(json.dumps(config))
    return WEIGHTS


def pickle_weights(directory):
    (directory / WEIGHTS).write_bytes(pickle.dumps({'weight': [1.0]}))
    return WEIGHTS


@pytest.mark.parametrize('damage', [forget_config, forget_weights, widen, pickle_weights])
def test_broken_directory_fails_configure_and_the_node_lives_on(start, broken, damage):
    named = damage(broken)
    with start(broken) as bench:
        robot = bench.robot
        assert not robot.transition('configure')
        robot.next(
            'log', lambda m: m.msg.startswith('configure failed') and named in m.msg, after=0
        )
        assert robot.lifecycle_state() == 'unconfigured'


def test_real_policy_prunes_and_is_configured_again_after_cleanup(start, good):
    with start(
        good,
        cameras=['front', 'wrist'],
        gripper__joint_names=['finger', 'finger'],
        instruction='reach',
    ) as bench:
        robot = bench.robot
        assert robot.transition('configure')
        assert robot.transition('cleanup')
        assert robot.transition('configure')
        assert robot.transition('activate')
        robot.wait_matched(*robot.images.values(), robot.pose, robot.joints)
        robot.start_feeding()
        message = robot.next('inference', lambda m: m.status[1].message == 'pruned')
        values = values_of(message.status[1])
        assert (values['method'], values['tokens_total/front']) == ('safe', '196')
        assert int(values['tokens_computed']) == round(260 * 0.25)
        robot.next('twist')


def test_a_policy_that_renews_says_what_it_keeps_and_what_has_no_effect(start, good):
    with start(
        good,
        cameras=['front', 'wrist'],
        gripper__joint_names=['finger', 'finger'],
        instruction='reach',
        pruning__method='refresh',
        pruning__layer=3,
    ) as bench:
        robot = bench.robot
        assert robot.transition('configure')
        config = json.loads((good / 'config.json').read_text())
        # Keys and values of 290 rows in every layer, in float32.
        context_bytes = 2 * config['num_hidden_layers'] * 290 * config['hidden_size'] * 4
        size = f'{context_bytes / 1e6:.3g} MB'
        robot.next('log', lambda m: m.msg.endswith(f'between steps: {size}'), after=0)
        robot.next('log', lambda m: m.msg.startswith('pruning.layer = 3 has no effect'), after=0)
        assert robot.transition('activate')
        robot.wait_matched(*robot.images.values(), robot.pose, robot.joints)
        robot.start_feeding()
        message = robot.next('inference', lambda m: m.status[1].message == 'renewed')
        values = values_of(message.status[1])
        assert int(values['tokens_computed']) == round(260 * 0.25)
        assert int(values['oldest_token_steps/front']) >= 1
        assert float(values['residual']) >= 0.0
        assert int(values['context_bytes']) == context_bytes
        robot.next('ratio', lambda m: m.data == pytest.approx(1 - 65 / 260, abs=1e-4))
        robot.next('twist')
