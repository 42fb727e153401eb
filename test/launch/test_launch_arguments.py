"""What the launch files make of their arguments, where ROS 2's launch system is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('launch', reason="ROS 2's launch system is not installed")
pytest.importorskip('launch_ros', reason="ROS 2's launch system is not installed")

from launch import LaunchContext
from launch.launch_description_sources import (
    get_launch_description_from_python_launch_file as read_launch_file,
)

LAUNCH = Path(__file__).resolve().parents[2] / 'launch'


def visit(name: str, **arguments: str) -> LaunchContext:
    """Visit all actions of a launch file; what they return is not started."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    for action in read_launch_file(str(LAUNCH / name)).entities:
        action.visit(context)
    return context


@pytest.mark.parametrize('argument', ['dry_run', 'use_sim_time', 'autostart', 'rviz'])
@pytest.mark.parametrize('text', ['ture', 'no', '0'])
def test_what_is_neither_true_nor_false_is_refused_by_name(argument, text):
    with pytest.raises(RuntimeError, match=f'"{argument}" provided value "{text}"'):
        visit('pruned_policy.launch.py', **{argument: text})


@pytest.mark.parametrize('text', ['true', 'false', 'True', 'False'])
def test_true_and_false_are_taken_as_yaml_and_python_write_them(text):
    visit('pruned_policy.launch.py', dry_run=text, use_sim_time=text, autostart=text)
