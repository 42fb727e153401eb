"""Parameters of the simulated robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.parameter_types import LARGEST_INT, Change, Parameter
from safe_vla_ros.ros.parameters import descriptor
from safe_vla_ros.sim.arm import BASE_FRAME, STEP_S
from safe_vla_ros.sim.robot_loop import LoopSettings
from safe_vla_ros.sim.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rclpy.node import Node

SIM_PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            'task', 'string', 'Task of the next episode.',
            default='reach', choices=tuple(TASKS), change=Change.DYNAMIC,
        ),
        Parameter(
            'seed', 'int', 'Seed of object and goal positions in the next episode.',
            default=0, minimum=0, maximum=LARGEST_INT, change=Change.DYNAMIC,
        ),
        Parameter(
            'camera_rate_hz', 'double', 'Rate of the images of every camera.',
            default=20.0, unit='Hz', minimum=1.0, maximum=1.0 / STEP_S, change=Change.READ_ONLY,
        ),
        Parameter(
            'state_rate_hz', 'double', 'Rate of ee_pose and joint_states.',
            default=40.0, unit='Hz', minimum=1.0, maximum=1.0 / STEP_S, change=Change.READ_ONLY,
        ),
        Parameter(
            'real_time_factor', 'double', 'Simulated seconds per second of wall clock.',
            default=1.0, minimum=0.05, maximum=10.0, change=Change.READ_ONLY,
        ),
        Parameter(
            'publish_clock', 'bool',
            'Publish /clock, at 200 Hz or more, and use simulated time for every stamp.',
            default=False, change=Change.READ_ONLY,
        ),
        Parameter(
            'base_frame', 'string', 'Frame of ee_pose and the only one accepted in a twist.',
            default=BASE_FRAME, change=Change.READ_ONLY,
        ),
        Parameter(
            'episode_duration_s', 'double', 'Simulated time after which an episode is over.',
            default=8.0, unit='s', minimum=0.1, maximum=3600.0, change=Change.READ_ONLY,
        ),
        Parameter(
            'autoplay', 'bool',
            'Begin an episode at the start, and the next task with the next seed after each end.',
            default=False, change=Change.READ_ONLY,
        ),
    )
}  # fmt: skip
"""Every parameter by name."""


def loop_settings(values: Mapping[str, Any]) -> LoopSettings:
    """Check the values of all parameters and turn them into settings.

    Raises:
        ParameterError: Out of range; the message names the parameter and what is allowed.
    """
    checked = {name: SIM_PARAMETERS[name].check(value) for name, value in values.items()}
    if not checked['base_frame']:
        msg = "base_frame = '': must not be empty"
        raise ParameterError(msg)
    return LoopSettings(
        camera_rate_hz=checked['camera_rate_hz'],
        state_rate_hz=checked['state_rate_hz'],
        real_time_factor=checked['real_time_factor'],
        publish_clock=checked['publish_clock'],
        episode_duration_s=checked['episode_duration_s'],
    )


def declare(node: Node) -> dict[str, Any]:
    """Declare every parameter with a description, and read what the user gave.

    Returns:
        The values by name, unchecked but of the declared type.

    Raises:
        ParameterError: A value of another type or out of range was given.
    """
    values: dict[str, Any] = {}
    for name, parameter in SIM_PARAMETERS.items():
        shown = descriptor(parameter)
        try:
            values[name] = node.declare_parameter(name, parameter.default, shown).value
        except InvalidParameterValueException as error:
            msg = f'{name} must be {parameter.allowed} ({error})'
            raise ParameterError(msg) from error
        except InvalidParameterTypeException as error:
            msg = f'{error}; write it as {parameter.default!r}'
            raise ParameterError(msg) from error
    return values
