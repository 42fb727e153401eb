"""Plays a bag into the live node under simulated time and records what the node makes of it.

For scores without ROS, and much faster, see `ros2 run safe_vla_ros replay`.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.event_handlers import OnStateTransition
from launch_ros.substitutions import FindPackageShare

from safe_vla_ros.runtime.parameter_file import read_remappings

SHARE = FindPackageShare('safe_vla_ros')
ARGUMENTS = (
    ('bag', None, 'Directory of the rosbag2 to play'),
    ('out', 'replay_bag', 'Directory of the bag to record; must not exist'),
    ('rate', '1.0', 'Speed of the playback'),
    (
        'exclude_regex',
        '(/.*)?/pruned_policy/.*|/diagnostics|/clock',
        'Topics of the bag not to play: the live node publishes them itself',
    ),
    (
        'localhost_only',
        'true',
        'Stay on this machine, so that no robot elsewhere receives the commands',
    ),
    ('policy', '', 'Policy; default: as in the robot YAML'),
    ('params_file', '', "Robot YAML; default: the node's and the policy's own values"),
    ('rviz', 'false', 'Start RViz with the overlays and the planned path'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in ARGUMENTS
    ]
    stay_here = SetEnvironmentVariable(
        'ROS_AUTOMATIC_DISCOVERY_RANGE',
        'LOCALHOST',
        condition=IfCondition(LaunchConfiguration('localhost_only')),
    )
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([SHARE, 'launch', 'pruned_policy.launch.py'])
        ),
        launch_arguments={
            'use_sim_time': 'true',
            **{
                name: LaunchConfiguration(name)
                for name in ('policy', 'params_file', 'rviz', 'log_level')
            },
        }.items(),
    )
    bags = OpaqueFunction(function=record_and_play)
    return LaunchDescription([*declared, stay_here, node, bags])


def record_and_play(context):
    def given(name):
        return LaunchConfiguration(name).perform(context)

    outputs = remapped_outputs(given('params_file'))
    record = ExecuteProcess(
        cmd=[
            *('ros2', 'bag', 'record', '--storage', 'mcap', '--use-sim-time'),
            *('--regex', any_of('(/.*)?/pruned_policy/.*', '/diagnostics', *outputs)),
            *('--output', given('out')),
        ],
        name='record',
        output='screen',
        on_exit=end_because('the recorder has ended'),
    )
    play = ExecuteProcess(
        cmd=[
            *('ros2', 'bag', 'play', '--clock', '200', '--disable-keyboard-controls'),
            *('--rate', given('rate')),
            *('--exclude-regex', any_of(given('exclude_regex'), *outputs)),
            given('bag'),
        ],
        name='play',
        output='screen',
        on_exit=end_because('the bag has ended'),
    )
    return [
        record,
        # The bag waits for the policy to be loaded.
        RegisterEventHandler(
            OnStateTransition(goal_state='active', entities=[play], handle_once=True)
        ),
    ]


def end_because(reason):
    def end(_event, context):
        return [] if context.is_shutdown else [Shutdown(reason=reason)]

    return end


def remapped_outputs(params_file):
    """Return a pattern for each topic that the node publishes under a name other than its own.

    The bag holds the robot's commands there. Played, they would be a second commander, for which
    the node halts.
    """
    remappings = read_remappings(Path(params_file)) if params_file else {}
    return [
        f'^{topic}$' if topic.startswith('/') else f'^(/.*)?/{topic}$'
        for name, topic in remappings.items()
        if name.startswith('~/')
    ]


def any_of(*patterns):
    return '|'.join(pattern for pattern in patterns if pattern)
