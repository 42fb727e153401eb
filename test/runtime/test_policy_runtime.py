"""The runtime as a whole: from images to commands on a clock that is told the time."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_fakes import Bench, FakePolicy, control, speed, steady_chunk

from safe_vla_ros.runtime import StateName


def test_commands_follow_the_chunks_without_pause_while_inference_takes_its_time() -> None:
    bench = Bench(latency_s=0.06)
    commands = bench.run(2.0)
    first = next(i for i, command in enumerate(commands) if command is not None)
    assert first == 3
    speeds = [speed(command) for command in commands[first:]]
    assert speeds == pytest.approx([0.1] * len(speeds))
    assert bench.state == StateName.RUNNING
    assert [report.accepted for report in bench.reports] == [True] * len(bench.reports)


def test_a_chunk_skips_exactly_what_was_played_since_its_observation() -> None:
    bench = Bench(latency_s=0.06)
    bench.run(1.0)
    assert bench.reports[0].skipped_actions == 0.0
    assert [report.skipped_actions for report in bench.reports[1:]] == pytest.approx(
        [0.06 / 0.05] * (len(bench.reports) - 1)
    )


def test_a_chunk_of_an_old_observation_moves_nothing() -> None:
    bench = Bench(latency_s=2.5)
    assert not any(speed(command) for command in bench.run(6.0))
    assert [report.accepted for report in bench.reports] == [False, False]
    assert 'a chunk came 2.5 s after its observation, allowed is max_chunk_age_s (2 s)' in {
        report.why_not for report in bench.reports
    }
    assert bench.state == StateName.WAITING
    assert 'max_chunk_age_s' in bench.reason


def test_a_slow_policy_moves_in_bursts_when_that_is_allowed() -> None:
    bench = Bench(latency_s=2.5, settings=control(max_chunk_age_s=3.0))
    commands = bench.run(9.0)
    bursts = sum(report.accepted for report in bench.reports)
    assert bursts == 2
    # Eight actions of 0.05 s at 0.1 m/s, and the last one held for the grace time.
    moved_m = sum(speed(command) * bench.interval_s for command in commands)
    assert moved_m == pytest.approx(bursts * (0.4 + 0.1) * 0.1, rel=0.05)


def test_inference_is_due_every_execute_steps_actions() -> None:
    bench = Bench(latency_s=0.06)
    bench.run(2.0)
    stamps = np.diff([report.observation_stamp_s for report in bench.reports])
    assert stamps[1:] == pytest.approx([0.2] * len(stamps[1:]))


def test_nothing_is_published_before_the_first_chunk() -> None:
    bench = Bench()
    assert bench.tick_only(1.0) == [None] * 50
    assert bench.state == StateName.WAITING


def test_dead_camera_decelerates_then_zeros_then_silence() -> None:
    bench = Bench()
    bench.run(1.0)
    bench.inputs.discard('front')
    commands = bench.run(2.0)
    published = [command for command in commands if command is not None]
    assert commands[-1] is None
    assert speed(published[-1]) == 0.0
    assert bench.state == StateName.STALE
    assert "camera 'front'" in bench.reason


def test_tick_is_cheap() -> None:
    import time

    bench = Bench(
        FakePolicy(lambda _: steady_chunk(steps=8)), settings=control(blending='crossfade')
    )
    bench.run(1.0)
    durations = []
    for _ in range(500):
        bench.feed()
        bench.infer()
        begin = time.perf_counter()
        bench.runtime.tick()
        durations.append(time.perf_counter() - begin)
        bench.pass_time()
    assert np.median(durations) < 0.3e-3
