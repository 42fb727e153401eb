"""The stopping guarantee: the longest time and path from each cause to rest, and what was measured.

An arm at speed v that brakes with a goes v^2 / 2a in v / a. Before that, it goes on at v until the
cause is found out, and for one control period more. A late control tick can make that period
longer, but not longer than the robot holds a command (H): then the node takes it for a stall.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from arm_motion import Stop

from safe_vla_ros.ros.control_loop import SUPERVISION_PERIOD_S
from safe_vla_ros.runtime.clock_watch import LONGEST_STANDSTILL_S


@dataclass(frozen=True)
class Setting:
    """What the guarantee depends on; the node's defaults, SI units.

    Attributes:
        max_linear_speed, max_linear_accel: Limits of motion.
        control_rate_hz, observation_timeout_s, starvation_grace_s: As the node's parameters.
        robot_command_timeout_s: How long the robot holds a command.
        chunk_s: How long a whole chunk lasts.
        stall_s: How long a stall lasts that is judged without a watchdog.
    """

    max_linear_speed: float = 0.25
    max_linear_accel: float = 1.0
    control_rate_hz: float = 50.0
    observation_timeout_s: float = 0.5
    starvation_grace_s: float = 0.1
    robot_command_timeout_s: float = 0.1
    chunk_s: float = 0.4
    stall_s: float = 0.4

    @property
    def hold_s(self) -> float:
        """How long the node lets a command stand, and a tick be late."""
        return max(self.robot_command_timeout_s, 2.0 / self.control_rate_hz)

    def braking_after(self, detection_s: float) -> Stop:
        """Return the longest stop where the arm brakes, once the cause is found out."""
        v, a = self.max_linear_speed, self.max_linear_accel
        unbraked_s = detection_s + self.hold_s
        return Stop(unbraked_s + v / a, v * unbraked_s + v * v / (2.0 * a))

    def at_once_after(self, detection_s: float) -> Stop:
        """Return the longest stop where the arm stops at once."""
        return Stop(detection_s, self.max_linear_speed * detection_s)


class Cause(Enum):
    """Why the arm must come to rest; the value is what the table says."""

    PAUSE = 'pause'
    DEACTIVATE = 'deactivate'
    INSTRUCTION = 'new or empty instruction, reset'
    SIGTERM = 'SIGTERM or SIGINT'
    INPUT_LOST = 'an input stops'
    STARVED = 'no new chunk comes'
    OTHER_COMMANDER = 'another commander'
    CLOCK_BACK = 'the clock jumps back'
    CLOCK_AHEAD = 'the clock jumps ahead'
    CLOCK_STOPPED = 'simulated time stops'
    STALLED = 'the node stalls'
    KILLED = 'the node is killed'


COUNTED_FROM = {
    Cause.INPUT_LOST: 'the stamp of its last message',
    Cause.STARVED: 'when inference hangs',
    Cause.OTHER_COMMANDER: 'its message',
    Cause.CLOCK_STOPPED: 'the last `/clock`',
    Cause.STALLED: 'its start',
}


def longest(cause: Cause, setting: Setting, *, watchdog: bool) -> Stop:
    """Return the longest time and path from a cause to rest.

    Args:
        cause: The cause.
        setting: What it depends on.
        watchdog: Whether the robot stops by itself after ``robot_command_timeout_s``; where it
            does not, the node has been told so with 0.
    """
    if cause is Cause.KILLED:
        return setting.at_once_after(setting.hold_s) if watchdog else Stop(math.inf, math.inf)
    if cause is Cause.STALLED:
        if watchdog:
            return setting.at_once_after(setting.hold_s)
        return setting.braking_after(setting.stall_s)
    if cause is Cause.CLOCK_AHEAD and watchdog:
        return setting.at_once_after(setting.hold_s)
    detection_s = {
        Cause.INPUT_LOST: setting.observation_timeout_s,
        Cause.STARVED: setting.chunk_s + setting.starvation_grace_s,
        Cause.CLOCK_STOPPED: LONGEST_STANDSTILL_S + SUPERVISION_PERIOD_S,
    }.get(cause, 0.0)
    return setting.braking_after(detection_s)


def excess(stop: Stop, bound: Stop) -> str:
    """Return a sentence where a stop is beyond the guarantee, else an empty text."""
    if stop.time_s <= bound.time_s and stop.distance_m <= bound.distance_m:
        return ''
    return f'{stop} is beyond the guarantee {bound}'


FORMULAS = {
    Cause.INPUT_LOST: '`observation_timeout_s` + H, then braking',
    Cause.STARVED: 'rest of the chunk + `starvation_grace_s` + H, then braking',
    Cause.CLOCK_STOPPED: 'at most 1.02 s + H, then braking',
    Cause.CLOCK_AHEAD: 'H, then a zero at once',
    Cause.STALLED: 'H; without a watchdog the stall + H, then braking',
    Cause.KILLED: 'H; without a watchdog for ever',
}


def markdown_table(report: Mapping[str, Any]) -> str:
    """Lay out what was measured beside the guarantee."""
    setting = Setting(**report['setting'])
    columns = ('at most', 'measured', 'at most, no watchdog', 'measured, no watchdog')
    rows = [f'| cause | unbraked time | {" | ".join(columns)} |', '|---|---|--:|--:|--:|--:|']
    for cause in Cause:
        measured = report['causes'][cause.name.lower()]
        name = cause.value
        if cause in COUNTED_FROM:
            name += f', from {COUNTED_FROM[cause]}'
        rows.append(
            f'| {name} | {FORMULAS.get(cause, "H, then braking")} '
            f'| {_told(longest(cause, setting, watchdog=True))} '
            f'| {_measured(measured["watchdog"])} '
            f'| {_told(longest(cause, setting, watchdog=False))} '
            f'| {_measured(measured["no_watchdog"])} |'
        )
    return '\n'.join(rows)


def _told(stop: Stop) -> str:
    if math.isinf(stop.time_s):
        return '**never rests**'
    return f'{stop.time_s:.2f} s, {1000.0 * stop.distance_m:.0f} mm'


def _measured(numbers: Mapping[str, Any] | None) -> str:
    if numbers is None:
        return ''
    if numbers['longest_s'] is None:
        return '**did not rest**'
    return _told(Stop(numbers['longest_s'], numbers['farthest_m']))
