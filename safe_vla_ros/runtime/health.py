"""Diagnostic levels of the four tasks, with the sentence that explains each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from safe_vla_ros.runtime.states import RuntimeState, StateName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.runtime.statistics import RuntimeStatistics
    from safe_vla_ros.runtime.tick_monitor import TickTiming

OK, WARN, ERROR = 0, 1, 2
"""Levels of ``diagnostic_msgs/DiagnosticStatus``."""

STATE_LEVELS = {
    StateName.RUNNING: OK,
    StateName.WAITING: WARN,
    StateName.LOADING: WARN,
    StateName.STARVED: WARN,
    StateName.HALTING: WARN,
    StateName.PAUSED: WARN,
    StateName.STALE: ERROR,
    StateName.FAILED: ERROR,
}
"""Level of each state of the runtime, and of the node while it loads a policy."""

CLIPPED_SHARE = 0.05
"""Share of the played ticks above which clipping is a warning."""


@dataclass(frozen=True)
class Health:
    """A level and why.

    Attributes:
        level: 0 OK, 1 WARN, 2 ERROR.
        message: Short text.
    """

    level: int
    message: str


@dataclass(frozen=True)
class Moment:
    """What was counted up to one moment; two of them make a period.

    Attributes:
        statistics: The runtime's.
        timing: The ticks'.
        steady_s: When, on a clock that never jumps.
    """

    statistics: RuntimeStatistics
    timing: TickTiming
    steady_s: float


def state_health(state: RuntimeState) -> Health:
    """Judge the runtime's state."""
    text = f'{state.name}: {state.reason}' if state.reason else state.name
    return Health(STATE_LEVELS[state.name], text)


def input_health(state: RuntimeState, incompatible_qos: Mapping[str, int]) -> Health:
    """Judge the inputs.

    Args:
        state: The runtime's state.
        incompatible_qos: Publishers with incompatible QoS by topic.
    """
    if state.name is StateName.STALE:
        return state_health(state)
    if incompatible_qos:
        topics = ', '.join(sorted(incompatible_qos))
        return Health(WARN, f'messages do not arrive: a publisher has incompatible QoS on {topics}')
    if state.name is StateName.WAITING:
        return state_health(state)
    return Health(OK, 'fresh' if state.name is StateName.RUNNING else state.name)


def inference_health(state: RuntimeState, now: Moment, before: Moment) -> Health:
    """Judge the inferences of a period."""
    statistics, earlier = now.statistics, before.statistics
    if state.name is StateName.FAILED:
        return state_health(state)
    if statistics.refused > earlier.refused:
        return Health(ERROR, 'a chunk was refused: it was not finite')
    if statistics.consecutive_failures:
        return Health(ERROR, f'{statistics.consecutive_failures} failures in a row')
    p95_s, chunk_s = statistics.latencies.p95_s, statistics.chunk_duration_s
    if p95_s is not None and chunk_s is not None and p95_s > chunk_s:
        text = f'p95 latency {p95_s:.3f} s is above the {chunk_s:.3f} s that a chunk lasts'
        return Health(WARN, text)
    return Health(*_idle_or('running', state))


def control_health(
    state: RuntimeState, now: Moment, before: Moment, other_publishers: int = 0
) -> Health:
    """Judge the control ticks of a period.

    Args:
        state: The runtime's state.
        now: What was counted up to the end of the period.
        before: What was counted up to its beginning.
        other_publishers: Other publishers on the command topic, silent or not.
    """
    health = state_health(state)
    if health.level == ERROR:
        return health
    warnings = [health.message] if health.level == WARN else []
    if other_publishers:
        warnings.append(f'{other_publishers} other publishers on the command topic')
    missed = now.timing.missed - before.timing.missed
    if missed > 0:
        warnings.append(f'{missed} ticks missed')
    starved = now.statistics.starved_ticks - before.statistics.starved_ticks
    if starved > 0 and state.name is not StateName.STARVED:
        warnings.append(f'starved for {starved} ticks')
    warnings.extend(_clipping(now.statistics, before.statistics))
    return Health(WARN, '; '.join(warnings)) if warnings else health


def pruning_health(state: RuntimeState, method: str) -> Health:
    """Judge the pruning; it has no way to go wrong but an inference's error."""
    return Health(*_idle_or(method, state))


def _idle_or(text: str, state: RuntimeState) -> tuple[int, str]:
    return (WARN, state_health(state).message) if state.name is StateName.WAITING else (OK, text)


def _clipping(now: RuntimeStatistics, before: RuntimeStatistics) -> list[str]:
    played = now.played_ticks - before.played_ticks
    if played <= 0:
        return []
    clipped = {
        'speed': now.speed_clipped_ticks - before.speed_clipped_ticks,
        'acceleration': now.acceleration_clipped_ticks - before.acceleration_clipped_ticks,
        'workspace': now.workspace_clipped_ticks - before.workspace_clipped_ticks,
        'lead': now.lead_clipped_ticks - before.lead_clipped_ticks,
    }
    return [
        f'{ticks / played:.0%} of the ticks clipped by {limit}'
        for limit, ticks in clipped.items()
        if ticks / played > CLIPPED_SHARE
    ]
