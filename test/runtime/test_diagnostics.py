"""Keys and values have fixed formats; levels follow states, failures, clipping and lateness."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from runtime_fakes import FakeMemory, record, steady_chunk

from safe_vla_ros.runtime import (
    InferenceJob,
    InferenceOutcome,
    InferenceReport,
    RuntimeState,
    RuntimeStatistics,
    StateName,
    diagnostics,
)
from safe_vla_ros.runtime.halt_reasons import HaltKind
from safe_vla_ros.runtime.health import (
    ERROR,
    OK,
    WARN,
    Moment,
    control_health,
    inference_health,
    input_health,
    pruning_health,
)
from safe_vla_ros.runtime.inference import InputSnapshot
from safe_vla_ros.runtime.inference_counts import Latencies
from safe_vla_ros.runtime.playback import Seam
from safe_vla_ros.runtime.pruning_totals import PrunedPass
from safe_vla_ros.runtime.tick_monitor import TickMonitor
from safe_vla_ros.types import MessageHeader, Observation, PruningSettings

RUNNING = RuntimeState(StateName.RUNNING, '')
STATISTICS = RuntimeStatistics(
    ages_s={'front': 0.0204, 'ee_pose': 0.01},
    camera_skew_s=0.0,
    images_received={'front': 7},
    images_dropped={'front': 2},
    inferences=5,
    accepted=4,
    discarded=1,
    failures=0,
    refused=0,
    consecutive_failures=0,
    latencies=Latencies(0.02, 0.03, 0.05),
    last_latency_s=0.02,
    warm_up_latency_s=None,
    last_observation_age_s=0.05,
    skipped_actions=1.0,
    seam_jump_m_s=None,
    seam_jump_rad_s=None,
    played_ticks=100,
    starved_ticks=0,
    speed_clipped_ticks=0,
    acceleration_clipped_ticks=0,
    workspace_clipped_ticks=0,
    lead_clipped_ticks=0,
    halts={HaltKind.STALE: 2, HaltKind.PAUSED: 1},
    chunk_remaining_s=0.2,
    chunk_duration_s=0.4,
    epoch=1,
    episode=1,
    step=4,
    instruction='push',
)
HEADERS = {'front': MessageHeader.at(3.5)}
IMAGES = {'front': np.zeros((1, 1, 3), np.uint8)}
JOB = InferenceJob(
    inputs=InputSnapshot(IMAGES, HEADERS, None, {}, 'push'),
    memory=FakeMemory(),
    pruning=PruningSettings(),
    started_s=3.53,
    epoch=1,
    generation=1,
    episode=2,
    step=4,
    warm_up=False,
)
REPORT = InferenceReport(
    InferenceOutcome(JOB, Observation(IMAGES, 'push', None, HEADERS), steady_chunk()),
    accepted=True,
    why_not='',
    latency_s=0.0123456,
    observation_age_s=0.04,
    seam=Seam(0.075, 1.5, None, 0.0),
)


def timing(intervals_s=(), period_s=0.02):
    monitor = TickMonitor(period_s)
    for now_s in np.cumsum([1.0, *intervals_s]):
        monitor.ticked(float(now_s), 0.001)
    return monitor.timing()


def moment(ticks=None, **changes):
    return Moment(dataclasses.replace(STATISTICS, **changes), ticks or timing(), 1.0)


def test_report_says_numbers_in_fixed_formats():
    values = diagnostics.report_values(REPORT)
    assert values['latency_ms'] == '12.35'
    assert values['observation_stamp_s'] == values['image_stamp_s/front'] == '3.500000'
    assert values['skipped_actions'] == '1.5000'
    assert values['seam_jump_m_s'] == 'none'
    assert (values['accepted'], values['why_not'], values['instruction']) == (
        'true',
        'none',
        'push',
    )


def test_every_value_is_text_and_every_key_a_plain_name():
    counts = diagnostics.PruningCounts()
    counts.add(record(), 1)
    everything = [
        diagnostics.report_values(REPORT),
        diagnostics.record_values(record(key_step=False)),
        diagnostics.subtask_reset_values(record(), episode=1, step=0),
        diagnostics.input_values(STATISTICS, {'/front/image_raw': 1}),
        diagnostics.inference_values(STATISTICS, 9.87654),
        diagnostics.control_values(STATISTICS, timing([0.02])),
        counts.values(),
    ]
    for values in everything:
        assert all(isinstance(value, str) and value for value in values.values())
        assert all(re.fullmatch(r'[a-z0-9_]+(/[a-z0-9_]+)?', key) for key in values)


def test_a_pass_is_read_back_as_it_was_written():
    for one in (record(), record(key_step=False)):
        pruned = dataclasses.replace(
            one, kept={'front': 1}, similarity=0.5, decoder_macs=10**9, decoder_macs_full=2 * 10**9
        )
        assert diagnostics.read_pass(diagnostics.record_values(pruned)) == PrunedPass.of(pruned)


def test_counts_begin_again_with_an_episode_but_not_in_all():
    counts = diagnostics.PruningCounts()
    for episode, key_step in ((1, True), (1, False), (2, True)):
        counts.add(record(key_step=key_step), episode)
    values = counts.values()
    assert (values['passes'], values['key_steps'], values['key_step_share']) == ('3', '2', '0.6667')
    assert (values['episode_passes'], values['episode_key_steps']) == ('1', '1')
    assert values['key_step_reasons'] == 'episode_start 2'


@pytest.mark.parametrize(
    ('name', 'level'),
    [
        (StateName.RUNNING, OK),
        (StateName.WAITING, WARN),
        (StateName.STARVED, WARN),
        (StateName.HALTING, WARN),
        (StateName.PAUSED, WARN),
        (StateName.STALE, ERROR),
        (StateName.FAILED, ERROR),
    ],
)
def test_level_of_control_follows_the_state(name, level):
    judged = control_health(RuntimeState(name, 'because'), moment(), moment())
    assert judged.level == level
    assert judged.message == f'{name}: because'


def test_missed_ticks_and_clipping_of_the_period_are_warnings():
    late = moment(timing([0.02, 0.045]), played_ticks=120, workspace_clipped_ticks=5)
    judged = control_health(RUNNING, late, moment())
    assert judged.level == WARN
    assert judged.message == '1 ticks missed; 25% of the ticks clipped by workspace'
    assert control_health(RUNNING, late, late).level == OK


def test_rare_clipping_is_no_warning():
    after = moment(played_ticks=200, acceleration_clipped_ticks=5)
    assert control_health(RUNNING, after, moment()).level == OK


def test_level_of_inference_follows_failures_refusals_and_latency():
    assert inference_health(RUNNING, moment(), moment()).level == OK
    assert inference_health(RUNNING, moment(consecutive_failures=1), moment()).level == ERROR
    assert inference_health(RUNNING, moment(refused=1), moment()).level == ERROR
    slow = moment(latencies=Latencies(0.3, 0.5, 0.6))
    judged = inference_health(RUNNING, slow, slow)
    assert judged.level == WARN
    assert '0.500 s is above the 0.400 s that a chunk lasts' in judged.message
    assert inference_health(RuntimeState(StateName.FAILED, 'x'), moment(), moment()).level == ERROR


def test_level_of_inputs_follows_staleness_and_qos():
    assert input_health(RUNNING, {}).level == OK
    assert input_health(RuntimeState(StateName.STALE, 'x'), {}).level == ERROR
    judged = input_health(RUNNING, {'/front/image_raw': 1})
    assert judged.level == WARN
    assert '/front/image_raw' in judged.message
    assert pruning_health(RUNNING, 'safe').level == OK


def test_tick_is_missed_when_it_is_later_than_half_a_period():
    punctual = timing([0.02] * 9 + [0.0295])
    assert (punctual.ticks, punctual.missed) == (11, 0)
    assert punctual.deviation_p50_s == pytest.approx(0.0, abs=1e-9)
    assert punctual.deviation_max_s == pytest.approx(0.0095)
    assert timing([0.0305]).missed == 1
    assert timing([0.1]).missed == 4
    assert timing([0.02, 0.02]).rate_hz == pytest.approx(50.0)


def test_clock_that_goes_back_counts_as_no_interval():
    assert timing([0.02, -5.0]).missed == 0
    assert timing([]).deviation_max_s is None


def test_a_method_that_renews_tells_its_residual_beside_tau_the_age_and_the_size_of_its_context():
    renewed = dataclasses.replace(
        record(key_step=False),
        residual=0.0712,
        max_staleness=0.1,
        ages={'front': np.array([[0.0, 12.0]], np.float32)},
        context_bytes=317_000_000,
    )

    values = diagnostics.record_values(renewed)

    assert (values['residual'], values['max_staleness']) == ('0.0712', '0.1000')
    assert values['context_bytes'] == '317000000'
    assert values['oldest_token_steps/front'] == '12'
    assert not any('kept' in key or 'dropped' in key for key in values)
    values = diagnostics.subtask_reset_values(renewed, episode=1, step=0)
    assert (values['residual'], values['max_staleness']) == ('0.0712', '0.1000')
    assert diagnostics.record_values(record())['residual'] == 'none'
