"""The stopping guarantee is what docs/safety.md says, and what was measured keeps it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from stopping_bounds import Cause, Setting, Stop, excess, longest, markdown_table

from safe_vla_ros.runtime import ControlSettings
from safe_vla_ros.runtime.clock_watch import LONGEST_STANDSTILL_S
from safe_vla_ros.runtime.halt_reasons import HaltKind

DOCS = Path(__file__).resolve().parents[2] / 'docs'
PAGE = (DOCS / 'safety.md').read_text(encoding='utf-8')
REPORT = json.loads((DOCS / 'stopping.json').read_text(encoding='utf-8'))


def between(name):
    return PAGE.split(f'<!-- {name} -->')[1].split(f'<!-- /{name} -->')[0].strip()


def test_the_table_is_the_one_that_was_measured():
    assert between('stopping') == markdown_table(REPORT)


@pytest.mark.parametrize('cause', Cause)
@pytest.mark.parametrize('watchdog', [True, False])
def test_every_measured_stop_is_within_the_guarantee(cause, watchdog):
    measured = REPORT['causes'][cause.name.lower()]['watchdog' if watchdog else 'no_watchdog']
    assert measured['stops'] >= 10
    never = measured['longest_s'] is None
    worst = (
        Stop(math.inf, math.inf) if never else Stop(measured['longest_s'], measured['farthest_m'])
    )
    assert excess(worst, longest(cause, Setting(**REPORT['setting']), watchdog=watchdog)) == ''
    assert never == (cause is Cause.KILLED and not watchdog)


def test_the_guarantee_is_for_the_defaults_of_the_node():
    control, setting = (
        ControlSettings(action_period_s=0.05, execute_steps=4, frame='base'),
        Setting(),
    )
    assert control.limits.max_linear_speed == setting.max_linear_speed
    assert control.limits.max_linear_accel == setting.max_linear_accel
    for name in (
        'control_rate_hz', 'observation_timeout_s', 'starvation_grace_s', 'robot_command_timeout_s',
    ):  # fmt: skip
        assert getattr(control, name) == getattr(setting, name), name
    assert Setting(**REPORT['setting']) == setting


def test_a_stop_that_takes_too_long_is_told():
    bound = longest(Cause.PAUSE, Setting(), watchdog=True)
    assert excess(bound, bound) == ''
    assert 'beyond' in excess(Stop(bound.time_s + 0.01, bound.distance_m), bound)
    assert 'beyond' in excess(Stop(bound.time_s, bound.distance_m + 0.001), bound)


def test_a_simulated_clock_is_waited_for_as_long_as_the_runtime_does():
    bound = longest(Cause.CLOCK_STOPPED, Setting(), watchdog=True)
    pause = longest(Cause.PAUSE, Setting(), watchdog=True)
    assert bound.time_s - pause.time_s == pytest.approx(LONGEST_STANDSTILL_S + 0.02)


def test_every_kind_of_halt_is_explained():
    rows = [line.split('|')[1:-1] for line in between('halts').splitlines()[2:]]
    told = {row[0].strip().strip('`'): row[1].strip().strip('`') for row in rows}
    assert told == {kind.value: kind.state.value for kind in HaltKind}
