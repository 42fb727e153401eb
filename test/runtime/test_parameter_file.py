"""A robot's parameter file gives the same values without ROS."""

from __future__ import annotations

import pytest

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.runtime.parameter_file import read_parameter_file, read_remappings

TEXT = """
/**:
  ros__parameters:
    cameras: [front, wrist]
    pruning: {keep_ratio: 0.5, layer: 3}
/arm/pruned_policy:
  ros__parameters: {pruning.keep_ratio: 0.25}
pruned_policy:
  ros__parameters: {dry_run: true}
other:
  ros__parameters: {cameras: [none]}
"""


def test_nested_names_become_dotted_and_later_sections_win(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text(TEXT)
    assert read_parameter_file(path, '/arm/pruned_policy') == {
        'cameras': ['front', 'wrist'],
        'pruning.keep_ratio': 0.25,
        'pruning.layer': 3,
    }
    assert read_parameter_file(path)['dry_run'] is True
    assert read_parameter_file(path)['pruning.keep_ratio'] == 0.5


@pytest.mark.parametrize('text', ['cameras: [a]', '', '- a', 'a: [', '\x00'])
def test_file_without_parameters_is_refused_with_its_path(tmp_path, text):
    path = tmp_path / 'robot.yaml'
    path.write_text(text)
    with pytest.raises(ParameterError, match=r'robot\.yaml'):
        read_parameter_file(path)


def test_missing_file_is_refused_with_its_path(tmp_path):
    with pytest.raises(ParameterError, match=r'absent\.yaml'):
        read_parameter_file(tmp_path / 'absent.yaml')


def test_remappings_are_read_from_the_robots_file(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text(
        '/**:\n  ros__parameters:\n    policy: mini\n'
        'remappings:\n  ros__parameters:\n    corner/image_raw: /front\n'
    )
    assert read_remappings(path) == {'corner/image_raw': '/front'}
    path.write_text('/**:\n  ros__parameters: {}\n')
    assert read_remappings(path) == {}
    path.write_text('remappings: [1]\n')
    with pytest.raises(ParameterError, match='must map names to topics'):
        read_remappings(path)


@pytest.mark.parametrize('content', [None, 'a: [1', b'\xff\xfe'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / 'robot.yaml'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ParameterError, match=r'robot\.yaml (cannot be read|is missing)'):
        read_remappings(path)
