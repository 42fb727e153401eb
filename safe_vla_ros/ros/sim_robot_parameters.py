"""Parameters of the simulated robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.parameter_types import LARGEST_INT, Change, Parameter
from safe_vla_ros.ros.parameters import descriptor
from safe_vla_ros.sim.arm import BASE_FRAME, STEP_S
from safe_vla_ros.sim.robot_loop import LoopSettings
from safe_vla_ros.sim.tasks import NUM_INIT_STATES, SUITES, TASKS, TASKS_PER_SUITE, split_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rclpy.node import Node

SIM_PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter(
            'task', 'string', 'Task of the next episode: suite/number, on LIBERO-Spatial also '
            'suite/number/other, which asks for the bowl that the benchmark does not ask for.',
            default=TASKS[0], change=Change.DYNAMIC,
            range_note=f'{", ".join(SUITES)}, then /0 to /{TASKS_PER_SUITE - 1}',
        ),
        Parameter(
            'init_state', 'int', "Number of the benchmark's own initial state of the next episode; "
            '-1 places everything afresh by the seed.',
            default=-1, minimum=-1, maximum=NUM_INIT_STATES - 1, change=Change.DYNAMIC,
        ),
        Parameter(
            'seed', 'int', 'Seed of the placement in the next episode; with an initial state, of '
            'the fixtures only (the benchmark has 0).',
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
            'real_time_factor', 'double',
            'Simulated seconds per second of wall clock; another one than 1 needs publish_clock.',
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
            'episode_duration_s', 'double',
            "Simulated time after which an episode is over; 0 for the benchmark's limit.",
            default=0.0, unit='s', minimum=0.0, maximum=3600.0, change=Change.READ_ONLY,
        ),
        Parameter(
            'plain_objects', 'bool',
            'Draw things of restricted licences in one colour: for pictures that are passed on.',
            default=False, change=Change.READ_ONLY,
        ),
        Parameter(
            'autoplay', 'bool',
            'Begin an episode when a policy listens, and the next task with the next seed (and '
            'initial state) after each end.',
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
    checked = {name: check(name, value) for name, value in values.items()}
    if not checked['base_frame']:
        msg = "base_frame = '': must not be empty"
        raise ParameterError(msg)
    if checked['real_time_factor'] != 1.0 and not checked['publish_clock']:
        msg = (
            f'real_time_factor = {checked["real_time_factor"]:g} needs publish_clock: true, so '
            'that commands and stamps are in simulated time, too'
        )
        raise ParameterError(msg)
    return LoopSettings(
        camera_rate_hz=checked['camera_rate_hz'],
        state_rate_hz=checked['state_rate_hz'],
        real_time_factor=checked['real_time_factor'],
        publish_clock=checked['publish_clock'],
        episode_duration_s=checked['episode_duration_s'],
    )


def check(name: str, value: Any) -> Any:
    """Check one value.

    Returns:
        The value, as ``Parameter.check`` does.

    Raises:
        ParameterError: Out of range; the message names the parameter and what is allowed.
    """
    value = SIM_PARAMETERS[name].check(value)
    if name == 'task':
        try:
            split_name(value)
        except KeyError as error:
            raise ParameterError(f'task: {error.args[0]}') from error
    return value


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
