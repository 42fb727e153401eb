"""The launch files without a node, where ROS 2's launch system is installed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

pytest.importorskip('launch', reason="ROS 2's launch system is not installed")
pytest.importorskip('launch_ros', reason="ROS 2's launch system is not installed")

from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetLaunchConfiguration,
    TimerAction,
)
from launch.launch_description_sources import (
    get_launch_description_from_python_launch_file as read_launch_file,
)
from launch.utilities import perform_substitutions

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


@pytest.fixture
def robot_file(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text(
        """
        remappings:
          ros__parameters:
            corner/image_raw: /front_camera/color/image_raw
            ~/ee_twist: /servo_node/delta_twist_cmds
            ~/gripper: hand/position
        """,
        encoding='utf-8',
    )
    return path


def bag_patterns(**arguments: str) -> tuple[str, str]:
    """Return what the replay records and what it does not play, as regular expressions."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    for action in read_launch_file(str(LAUNCH / 'replay.launch.py')).entities:
        if isinstance(action, DeclareLaunchArgument):
            action.visit(context)
        elif isinstance(action, OpaqueFunction):
            record, start_playing = action.visit(context)

    def word_after(option: str, process: ExecuteProcess) -> str:
        words = [perform_substitutions(context, word) for word in process.cmd]
        return words[words.index(option) + 1]

    (play,) = start_playing.event_handler.entities
    return word_after('--regex', record), word_after('--exclude-regex', play)


@pytest.mark.parametrize(
    'topic',
    [
        '/servo_node/delta_twist_cmds',
        '/hand/position',
        '/arm/hand/position',
        '/pruned_policy/state',
        '/arm/pruned_policy/state',
        '/diagnostics',
    ],
)
def test_what_the_node_publishes_is_recorded_and_not_played(robot_file, topic):
    recorded, not_played = bag_patterns(bag='bag', params_file=str(robot_file))
    assert re.search(recorded, topic)
    assert re.fullmatch(not_played, topic)


@pytest.mark.parametrize(
    'topic', ['/front_camera/color/image_raw', '/hand/position/image_raw', '/instruction', '/']
)
@pytest.mark.parametrize('exclude_regex', ['/clock', ''])
def test_inputs_are_played_and_not_recorded(robot_file, topic, exclude_regex):
    recorded, not_played = bag_patterns(
        bag='bag', params_file=str(robot_file), exclude_regex=exclude_regex
    )
    assert not re.search(recorded, topic)
    assert not re.fullmatch(not_played, topic)


def test_a_bag_can_be_replayed_without_a_robot_file():
    recorded, not_played = bag_patterns(bag='bag')
    assert re.search(recorded, '/pruned_policy/ee_twist')
    assert not re.search(recorded, '/servo_node/delta_twist_cmds')
    assert re.fullmatch(not_played, '/clock')


def test_the_replay_ends_when_the_recorder_does(tmp_path, monkeypatch):
    failing = tmp_path / 'ros2'
    failing.write_text('#!/bin/sh\nexit 1\n', encoding='utf-8')
    failing.chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    too_late = []
    timer = TimerAction(period=30.0, actions=[OpaqueFunction(function=too_late.append)])
    without_node = [
        action
        for action in read_launch_file(str(LAUNCH / 'replay.launch.py')).entities
        if not isinstance(action, IncludeLaunchDescription)
    ]
    service = LaunchService(noninteractive=True)
    service.include_launch_description(
        LaunchDescription([SetLaunchConfiguration('bag', 'bag'), *without_node, timer])
    )
    service.run()
    assert not too_late
