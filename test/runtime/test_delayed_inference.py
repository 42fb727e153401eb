"""An inference on a clock that is set ends when its modelled time has passed."""

import pytest
from runtime_fakes import Bench

from safe_vla_ros.runtime.delayed_inference import DelayedInference


def test_a_chunk_is_played_when_its_time_has_come_and_one_inference_runs_at_a_time():
    bench = Bench()
    inference = DelayedInference(bench.runtime)
    bench.feed()
    measured = []

    def latency_s(measured_s):
        measured.append(measured_s)
        return 0.06

    assert inference.begin(bench.now_s, latency_s) is not None
    assert inference.due_s == pytest.approx(bench.now_s + 0.06)
    bench.tick_only(0.06)
    assert inference.begin(bench.now_s, latency_s) is None
    assert len(measured) == 1
    assert measured[0] >= 0.0
    report = inference.finish()
    assert report.accepted
    assert report.latency_s == pytest.approx(0.06)
    assert inference.due_s is None


def test_without_inputs_nothing_begins_and_nothing_ends():
    inference = DelayedInference(Bench().runtime)
    assert inference.begin(1.0, lambda _: 0.0) is None
    assert inference.due_s is None
    assert inference.finish() is None
