"""Episodes in process have the settings that the node has with the arm's robot YAML."""

from __future__ import annotations

import pytest
import yaml

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.policies import read_spec
from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.expert_policy import EXPERT_SPEC
from safe_vla_ros.sim.policy_file import PRUNING, store_pruning, write_policy_file
from safe_vla_ros.sim.robot_file import robot_file

CALIBRATED = {
    'refresh_threshold',
    'forecast_layers',
    'fusion_weight',
    'saliency_layers',
    'age_weight',
    'max_staleness',
}


def test_episodes_in_process_are_played_limited_and_pruned_as_in_the_node():
    spec = read_spec('mini_libero')
    node, episode = resolve(read_parameter_file(robot_file()), spec), resolve_episode(spec)
    assert episode.control == node.control
    assert episode.control.workspace is not None
    assert episode.pruning == node.pruning
    differing = {name for name in node.values if node.values[name] != episode.values[name]}
    assert differing == {'device', 'dtype'}


def test_demonstrations_are_played_as_the_policy_that_learns_from_them():
    policy = resolve_episode(read_spec('mini_libero'))
    assert resolve_episode(EXPERT_SPEC).control == policy.control


def test_the_bundled_policy_file_is_what_training_and_calibration_write(tmp_path):
    bundled = yaml.safe_load(
        (robot_file().parents[1] / 'models/mini_libero/policy.yaml').read_text()
    )
    calibrated = {name: value for name, value in bundled['pruning'].items() if name not in PRUNING}

    write_policy_file(tmp_path)
    store_pruning(tmp_path, calibrated)

    assert yaml.safe_load((tmp_path / 'policy.yaml').read_text()) == bundled
    assert set(calibrated) <= CALIBRATED


def test_calibrated_values_are_added_to_those_that_are_there(tmp_path):
    write_policy_file(tmp_path)
    store_pruning(tmp_path, {'refresh_threshold': 0.8, 'fusion_weight': 0.5})
    store_pruning(tmp_path, {'max_staleness': 0.1, 'fusion_weight': 0.25})

    content = yaml.safe_load((tmp_path / 'policy.yaml').read_text())
    expected = {'refresh_threshold': 0.8, 'fusion_weight': 0.25, 'max_staleness': 0.1}
    assert content['pruning'] == {**PRUNING, **expected}
    assert content['action_period_s'] == EXPERT_SPEC.action_period_s


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'command_frame': 'base_link'}, 'command_frame is base_link.*allowed: world'),
        ({'command_type': 'pose'}, 'command_type is pose.*allowed: twist'),
        ({'cameras': ['front', 'wrist']}, 'cameras is front.*allowed: agentview, wrist'),
        ({'gripper.joint_names': ['a', 'b']}, 'joint of proprio.layout is a, b.*panda_finger'),
    ],
)
def test_settings_that_the_arm_cannot_follow_are_refused(changes, message):
    with pytest.raises(ParameterError, match=message):
        resolve_episode(EXPERT_SPEC, changes)
