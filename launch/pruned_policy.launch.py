"""Starts the node pruned_policy and takes it to active."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from safe_vla_ros.runtime.parameter_file import read_remappings

ARGUMENTS = (
    (
        'policy',
        '',
        'Directory, bundled name or hf:org/name@<40-hex commit>; default: as in the robot YAML',
    ),
    ('params_file', '', "Robot YAML; default: the node's and the policy's own values"),
    ('dry_run', '', 'true: publish no commands; default: as in the robot YAML'),
    ('namespace', '', 'Namespace of the node'),
    ('use_sim_time', 'false', 'Follow /clock'),
    ('autostart', 'true', 'Configure the node, then activate it'),
    ('rviz', 'false', 'Start RViz with the overlays and the planned path'),
    ('log_level', 'info', 'debug, info, warn, error or fatal'),
)
# A misspelt truth is an error: taken for false, `dry_run:=ture` would move the arm.
TRUTHS = ['true', 'false', 'True', 'False']
CHOICES = {
    'dry_run': ['', *TRUTHS],
    'use_sim_time': TRUTHS,
    'autostart': TRUTHS,
    'rviz': TRUTHS,
}


def generate_launch_description():
    declared = [
        DeclareLaunchArgument(
            name, default_value=default, description=description, choices=CHOICES.get(name)
        )
        for name, default, description in ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=make_actions)])


def make_actions(context):
    def given(name):
        return LaunchConfiguration(name).perform(context)

    explicit = {'use_sim_time': is_true(given('use_sim_time'))}
    if given('policy'):
        explicit['policy'] = given('policy')
    if given('dry_run'):
        explicit['dry_run'] = is_true(given('dry_run'))
    files = [given('params_file')] if given('params_file') else []
    remappings = read_remappings(Path(files[0])) if files else {}
    node = LifecycleNode(
        package='safe_vla_ros',
        executable='pruned_policy',
        name='pruned_policy',
        namespace=given('namespace'),
        parameters=[*files, explicit],
        remappings=list(remappings.items()),
        arguments=['--ros-args', '--log-level', given('log_level')],
        output='screen',
        emulate_tty=True,
        # A halt takes up to two seconds; give it time before the launch system insists.
        sigterm_timeout='10',
        on_exit=end_with_the_node,
    )
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=[
            '-d',
            PathJoinSubstitution(
                [FindPackageShare('safe_vla_ros'), 'config', 'pruned_policy.rviz']
            ),
        ],
        parameters=[{'use_sim_time': explicit['use_sim_time']}],
        condition=IfCondition(given('rviz')),
    )
    handlers = autostart_handlers(node) if is_true(given('autostart')) else []
    return [*handlers, node, rviz]


def end_with_the_node(_event, context):
    """End everything with the node, unless it ends because everything does."""
    return [] if context.is_shutdown else [Shutdown(reason='pruned_policy has ended')]


def autostart_handlers(node):
    """Configure when the process is there; activate when configuring has ended well."""

    def change(transition):
        return EmitEvent(
            event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition)
        )

    return [
        RegisterEventHandler(
            OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
        ),
        RegisterEventHandler(
            # From configuring only: a node that somebody deactivates stays inactive.
            OnStateTransition(
                target_lifecycle_node=node,
                start_state='configuring',
                goal_state='inactive',
                entities=[change(Transition.TRANSITION_ACTIVATE)],
            )
        ),
    ]


def is_true(text):
    return text.lower() == 'true'
