"""The worker runs one inference at a time, survives errors, and stops promptly."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from runtime_fakes import FakePolicy, control, steady_chunk

from safe_vla_ros.runtime import InferenceReport, InferenceWorker, PolicyRuntime, SteadyClock
from safe_vla_ros.types import ActionChunk, MessageHeader, Observation, PruningSettings

PATIENCE_S = 20.0


class Site:
    """A runtime in real time, a worker, and what it reported."""

    def __init__(self, policy: FakePolicy) -> None:
        self.clock = SteadyClock()
        self.runtime = PolicyRuntime(
            policy=policy,
            cameras=('front',),
            proprio_layout=(),
            gripper_joint_names=(),
            control=control(observation_timeout_s=60.0),
            pruning=PruningSettings(method='none'),
            clock=self.clock,
            initial_instruction='reach',
        )
        self.reports: list[InferenceReport] = []
        self.reported = threading.Condition()
        self.worker = InferenceWorker(self.runtime, self._take)
        self.runtime.activate()

    def _take(self, report: InferenceReport) -> None:
        with self.reported:
            self.reports.append(report)
            self.reported.notify_all()

    def put_image(self) -> None:
        now_s = self.clock.now_s()
        self.runtime.put_image(
            'front', np.zeros((4, 4, 3), np.uint8), header=MessageHeader.at(now_s)
        )
        self.worker.wake()

    def wait_for_reports(self, count: int) -> None:
        with self.reported:
            assert self.reported.wait_for(lambda: len(self.reports) >= count, PATIENCE_S)


class SlowPolicy(FakePolicy):
    """A policy that takes until it is released."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.begun = threading.Event()
        self.release = threading.Event()
        self.running = 0
        self.most_running = 0

    def _wait(self, _: Observation) -> ActionChunk:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.begun.set()
        assert self.release.wait(PATIENCE_S)
        self.running -= 1
        return steady_chunk()


def test_an_image_leads_to_a_report() -> None:
    site = Site(FakePolicy())
    site.worker.start()
    site.put_image()
    site.wait_for_reports(1)
    assert site.reports[0].accepted
    assert site.worker.stop(PATIENCE_S)


def test_only_the_newest_image_is_used_and_one_inference_runs() -> None:
    policy = SlowPolicy()
    site = Site(policy)
    site.worker.start()
    site.put_image()
    assert policy.begun.wait(PATIENCE_S)
    site.runtime.reset_episode()
    for _ in range(5):
        site.put_image()
    newest_s = site.runtime._inputs.cameras['front'].stamp_s
    policy.release.set()
    site.wait_for_reports(2)
    assert site.worker.stop(PATIENCE_S)
    assert [report.accepted for report in site.reports[:2]] == [False, True]
    assert site.reports[1].observation_stamp_s == newest_s
    assert policy.most_running == 1
    assert site.runtime.statistics().images_dropped == {'front': 4}


def test_errors_of_the_policy_become_reports() -> None:
    def fail(_: Observation) -> ActionChunk:
        raise RuntimeError('no memory left')

    site = Site(FakePolicy(fail))
    site.worker.start()
    for count in (1, 2):
        site.put_image()
        site.wait_for_reports(count)
    assert [report.error for report in site.reports] == ['RuntimeError: no memory left'] * 2
    assert 'raise RuntimeError' in site.reports[0].details
    assert site.worker.stop(PATIENCE_S)


def test_the_worker_outlives_an_error_of_its_listener() -> None:
    site, seen, told = Site(FakePolicy()), [], threading.Event()

    def listen(report: InferenceReport) -> None:
        raise ValueError('listener')

    def on_error(error: Exception) -> None:
        seen.append(str(error))
        told.set()

    site.worker = InferenceWorker(site.runtime, listen, on_error=on_error)
    site.worker.start()
    site.put_image()
    assert told.wait(PATIENCE_S)
    assert site.worker.running
    assert seen == ['listener']
    assert site.worker.stop(PATIENCE_S)


def test_an_idle_worker_stops_at_once() -> None:
    site = Site(FakePolicy())
    site.worker.start()
    begin_s = time.monotonic()
    assert site.worker.stop(PATIENCE_S)
    assert time.monotonic() - begin_s < PATIENCE_S / 2
    assert not site.worker.running


def test_stop_does_not_wait_longer_than_asked_for_an_inference_and_its_report_is_dropped() -> None:
    policy = SlowPolicy()
    site = Site(policy)
    site.worker.start()
    site.put_image()
    assert policy.begun.wait(PATIENCE_S)
    assert not site.worker.stop(0.01)
    assert site.worker.running
    policy.release.set()
    assert site.worker.stop(PATIENCE_S)
    assert site.reports == []


def test_a_worker_started_again_waits_for_the_inference_of_its_predecessor() -> None:
    policy = SlowPolicy()
    site = Site(policy)
    site.worker.start()
    site.put_image()
    assert policy.begun.wait(PATIENCE_S)
    assert not site.worker.stop(0.01)
    site.runtime.activate()
    site.worker.start()
    site.put_image()
    policy.release.set()
    site.wait_for_reports(1)
    assert site.reports[0].accepted
    assert policy.most_running == 1
    assert site.worker.stop(PATIENCE_S)


def test_starting_twice_starts_one_thread() -> None:
    site = Site(FakePolicy())
    site.worker.start()
    thread = site.worker._thread
    site.worker.start()
    assert site.worker._thread is thread
    assert site.worker.stop(PATIENCE_S)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_ticks_pauses_and_resets_race_with_inference_and_nothing_moves_in_a_pause(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    site = Site(FakePolicy(lambda _: steady_chunk(0.1)))
    site.worker.start()
    stop, wrong = threading.Event(), []

    def feed() -> None:
        while not stop.is_set():
            site.put_image()
            stop.wait(0.001)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        for _ in range(60):
            action = rng.integers(4)
            if action == 0:
                site.runtime.pause(True)
                for _ in range(3):
                    command = site.runtime.tick()
                    if command is not None and command.linear_m_s.any():
                        wrong.append(command)
                site.runtime.pause(False)
            elif action == 1:
                site.runtime.reset_episode()
            elif action == 2:
                site.runtime.set_instruction(f'task {rng.integers(3)}')
            else:
                site.runtime.tick()
                site.runtime.statistics()
    finally:
        stop.set()
        feeder.join(PATIENCE_S)
        assert site.worker.stop(PATIENCE_S)
    assert wrong == []
    assert site.runtime.statistics().failures == 0
