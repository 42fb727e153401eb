"""The worked robot YAMLs say everything that a checkpoint does not."""

from dataclasses import replace
from pathlib import Path

import pytest
from openvla_checkpoints import RandomCheckpoint, golden_parameters, unpack_golden

from safe_vla_ros.policies.registry import load_policy, read_spec
from safe_vla_ros.pruning import PRUNER_NAMES
from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.runtime.parameters import resolve

CONFIG = Path(__file__).parents[2] / 'config'
ROBOTS = {
    'openvla_oft_libero': RandomCheckpoint(width=8, layers=32),
    'openvla_bridge': RandomCheckpoint(
        width=8, layers=32, head=False, proprio_dim=None, dataset='bridge_orig'
    ),
}


@pytest.mark.parametrize('name', ROBOTS)
def test_a_checkpoint_of_that_robot_loads_with_the_yaml(tmp_path, name):
    path = ROBOTS[name].write(tmp_path)
    values = read_parameter_file(CONFIG / f'{name}.yaml')
    resolved = resolve(values, read_spec(str(path)), pruner_names=PRUNER_NAMES)
    policy = load_policy(str(path), replace(resolved.policy, device='cpu'))
    assert policy.spec.kind == name.rpartition('_')[0]
    assert resolved.control.execute_steps <= policy.spec.chunk_size


@pytest.mark.parametrize('name', ['set1', 'set2'])
def test_the_parameters_for_golden_checkpoints_are_complete(tmp_path, name):
    path = unpack_golden(name, tmp_path)
    resolved = resolve(golden_parameters(path, name), read_spec(str(path)))
    assert load_policy(str(path), resolved.policy).spec.chunk_size == 8
