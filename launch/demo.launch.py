"""Starts the simulated robot, the node pruned_policy and, where installed, RViz."""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from safe_vla_ros.sim.tasks import TASKS

SHARE = FindPackageShare('safe_vla_ros')


def generate_launch_description():
    arguments = (
        ('policy', '', 'Policy; default: as in the robot YAML'),
        (
            'params_file',
            PathJoinSubstitution([SHARE, 'config', 'mini_libero.yaml']),
            'Robot YAML of the policy node; default: that of the simulated Panda',
        ),
        ('namespace', '', 'Namespace of both nodes'),
        ('use_sim_time', 'false', 'The robot publishes /clock and the policy node follows it'),
        ('real_time_factor', '1.0', 'Simulated seconds per second of wall clock'),
        ('task', TASKS[0], 'First task, for example libero_object/3; the others follow'),
        ('init_state', '-1', "The benchmark's initial state of the first episode; -1: by seed"),
        ('seed', '10000', 'Seed of the first episode'),
        ('rviz', 'true' if is_installed('rviz2') else 'false', 'Start RViz'),
        ('log_level', 'info', 'debug, info, warn, error or fatal'),
    )
    robot = Node(
        package='safe_vla_ros',
        executable='sim_robot',
        name='sim_robot',
        namespace=LaunchConfiguration('namespace'),
        parameters=[
            {
                'autoplay': True,
                'task': LaunchConfiguration('task'),
                'init_state': as_type('init_state', int),
                'seed': as_type('seed', int),
                'real_time_factor': as_type('real_time_factor', float),
                'publish_clock': as_type('use_sim_time', bool),
            }
        ],
        remappings=[
            ('ee_twist', 'pruned_policy/ee_twist'),
            ('gripper', 'pruned_policy/gripper'),
        ],
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        output='screen',
        emulate_tty=True,
    )
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([SHARE, 'launch', 'pruned_policy.launch.py'])
        ),
        launch_arguments={
            name: LaunchConfiguration(name)
            for name in ('policy', 'params_file', 'namespace', 'use_sim_time', 'rviz', 'log_level')
        }.items(),
    )
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, default, description in arguments
    ]
    return LaunchDescription([*declared, policy, robot])


def as_type(name, kind):
    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def is_installed(package):
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
