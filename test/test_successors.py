"""Who still asks for the MetaWorld policy is told what has taken its place."""

from pathlib import Path

import pytest

from safe_vla_ros.demo.options import parse_options
from safe_vla_ros.errors import CheckpointError, ParameterError
from safe_vla_ros.policies import find_policy
from safe_vla_ros.runtime.parameter_file import read_parameter_file, read_remappings
from safe_vla_ros.successors import successor_note

SUCCESSOR = 'Its successor is mini_libero, for the simulated Panda: policy: mini_libero'


@pytest.mark.parametrize(
    'reference', ['mini_metaworld', 'models/mini_metaworld', '/opt/ros/share/mini_metaworld/']
)
def test_its_name_and_its_directory_are_refused_with_the_successors_name(reference):
    with pytest.raises(CheckpointError, match=SUCCESSOR):
        find_policy(reference)


def test_a_copy_of_its_directory_is_refused_too(tmp_path):
    (tmp_path / 'mini_metaworld').mkdir()
    with pytest.raises(CheckpointError, match=SUCCESSOR):
        find_policy(str(tmp_path / 'mini_metaworld'))


@pytest.mark.parametrize('read', [read_parameter_file, read_remappings])
def test_its_robot_yaml_is_refused_with_the_successors_name(read):
    with pytest.raises(ParameterError, match=r'config/mini_libero\.yaml'):
        read(Path('config/mini_metaworld.yaml'))


def test_the_demo_says_so_too(capsys):
    with pytest.raises(SystemExit):
        parse_options(['--params-file', 'config/mini_metaworld.yaml'])
    assert 'robot YAML config/mini_libero.yaml' in capsys.readouterr().err


def test_a_copy_of_its_robot_yaml_is_still_read(tmp_path):
    path = tmp_path / 'mini_metaworld.yaml'
    path.write_text('/**: {ros__parameters: {policy: mini_metaworld}}', encoding='utf-8')
    assert read_parameter_file(path) == {'policy': 'mini_metaworld'}


@pytest.mark.parametrize('reference', ['mini_libero', 'hf:org/name@0', 'my_robot.yaml', ''])
def test_other_names_have_no_successor(reference):
    assert successor_note(reference) == ''
