"""Every kind of halt can happen, ends a motion in its state, and is counted as what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from runtime_fakes import Bench, FakePolicy, chunk, control, speed, steady_chunk

from safe_vla_ros.runtime import ManualClock, StateName, Workspace, diagnostics
from safe_vla_ros.runtime.halt_reasons import HaltKind, stalled
from safe_vla_ros.runtime.tick_monitor import TickMonitor
from safe_vla_ros.types import ActionChunk, Observation

BOX = Workspace((0.0, -0.5, 0.0), (2.0, 0.5, 0.6), 0.05)


def run_until_halted(bench: Bench) -> None:
    for _ in range(200):
        if bench.runtime.statistics().halts:
            return
        bench.step()
    pytest.fail('nothing was halted')


def fail(_: Observation) -> ActionChunk:
    raise RuntimeError('out of memory')


def stale(bench: Bench) -> None:
    bench.inputs.clear()


def missing(bench: Bench) -> None:
    """Need a pose that has never come."""
    bench.runtime.apply(control(frame='ee'))


def invalid(bench: Bench) -> None:
    bench.inputs.add('ee_pose')
    bench.position[0] = math.nan
    bench.feed()
    bench.runtime.apply(control(frame='ee'))


def outside(bench: Bench) -> None:
    bench.inputs.add('ee_pose')
    bench.position[0] = 3.0
    bench.feed()
    bench.runtime.apply(control(workspace=BOX))


def slow(bench: Bench) -> None:
    bench.latency_s = 100.0


def failing(bench: Bench) -> None:
    """Fail for good before the plan has run out."""
    bench.runtime.apply(control(max_consecutive_failures=1))
    bench.policy.plan = fail


def not_finite(bench: Bench) -> None:
    bench.policy.plan = lambda _: chunk([[math.nan, 0, 0]] * 8)


def stopped_clock(bench: Bench) -> None:
    bench.clock_runs = False


CAUSES: dict[HaltKind, Callable[[Bench], None]] = {
    HaltKind.DEACTIVATE: lambda bench: bench.runtime.begin_deactivate(),
    HaltKind.FAILURES: failing,
    HaltKind.WORKSPACE: outside,
    HaltKind.PAUSED: lambda bench: bench.runtime.pause(True),
    HaltKind.NO_INSTRUCTION: lambda bench: bench.runtime.set_instruction(''),
    HaltKind.MISSING: missing,
    HaltKind.STALE: stale,
    HaltKind.INVALID: invalid,
    HaltKind.INSTRUCTION: lambda bench: bench.runtime.set_instruction('another task'),
    HaltKind.RESET: lambda bench: bench.runtime.reset_episode(),
    HaltKind.CLOCK_JUMP: lambda bench: bench.clock.advance(-5.0),
    HaltKind.CLOCK_STOPPED: stopped_clock,
    HaltKind.STALLED: lambda bench: bench.clock.advance(0.3),
    HaltKind.OTHER_COMMANDER: lambda bench: bench.runtime.hear_other_commander('/ee_twist'),
    HaltKind.NON_FINITE: not_finite,
    HaltKind.STARVED: slow,
}


@pytest.mark.parametrize('kind', HaltKind, ids=str)
def test_every_kind_of_halt_is_raised_and_counted_once(kind: HaltKind) -> None:
    bench = Bench(
        FakePolicy(lambda _: steady_chunk(0.2, steps=40)), steady_clock=ManualClock(500.0)
    )
    bench.runtime.activate(simulated_time=True)
    bench.inputs.discard('ee_pose')
    assert speed(bench.run(0.5)[-1]) > 0.0
    CAUSES[kind](bench)
    run_until_halted(bench)
    bench.latency_s = 100.0  # no new plan, and so no second halt
    bench.run(0.04)
    statistics = bench.runtime.statistics()
    assert statistics.halts == {kind: 1}
    stopping = StateName.HALTING if kind.state is StateName.WAITING else kind.state
    assert bench.state is stopping
    values = diagnostics.control_values(statistics, TickMonitor(0.02).timing())
    assert values['halts'] == f'{kind.value} 1'


@pytest.mark.parametrize('name', [*StateName, *HaltKind], ids=str)
def test_names_are_plain_text_in_messages_and_files(name: StateName | HaltKind) -> None:
    assert (str(name), f'{name}') == (name.value, name.value)
    assert json.loads(json.dumps({name: name})) == {name.value: name.value}


@pytest.mark.parametrize(
    ('hold_s', 'told'), [(0.1, 'holds one for 0.1 s'), (0.0, 'holds one for ever')]
)
def test_a_stall_tells_how_long_the_robot_holds_a_command(hold_s: float, told: str) -> None:
    assert stalled(0.3, hold_s).text.endswith(told)
