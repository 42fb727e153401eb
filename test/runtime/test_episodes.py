"""Epochs drop what is older, and the policy's memory begins anew for the right reason."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_fakes import Bench, FakeMemory, FakePolicy, control, speed, steady_chunk

from safe_vla_ros.runtime import StateName
from safe_vla_ros.types import PruningSettings


def memories(bench: Bench) -> list[FakeMemory]:
    """Return every memory that the policy was given, once."""
    return list({id(memory): memory for memory in bench.policy.memories}.values())


def running(**arguments: object) -> Bench:
    bench = Bench(**arguments)  # type: ignore[arg-type]
    bench.run(0.5)
    assert bench.state == StateName.RUNNING
    return bench


def test_one_episode_has_one_memory_that_nobody_clears() -> None:
    bench = running()
    bench.run(3.0)
    assert [memory.reasons for memory in memories(bench)] == [[]]
    assert {report.job.episode for report in bench.reports} == {1}
    assert [report.job.step for report in bench.reports] == list(range(len(bench.reports)))


def test_a_different_instruction_begins_an_episode() -> None:
    bench = running()
    bench.runtime.set_instruction('push')
    bench.run(0.5)
    assert [memory.reasons for memory in memories(bench)] == [[], ['instruction']]
    assert bench.policy.observations[-1].instruction == 'push'
    assert bench.reports[-1].job.episode == 2


@pytest.mark.parametrize('text', ['reach', ' reach ', 'reach\n'])
def test_the_same_instruction_again_changes_nothing(text: str) -> None:
    bench = running()
    before = bench.runtime.statistics()
    bench.runtime.set_instruction(text)
    speeds = [speed(command) for command in bench.run(1.0)]
    assert speeds == pytest.approx([0.1] * 50)
    after = bench.runtime.statistics()
    assert (after.epoch, after.halts) == (before.epoch, {})
    assert len(memories(bench)) == 1


def test_an_empty_instruction_halts_and_the_old_text_begins_an_episode() -> None:
    bench = running()
    bench.runtime.set_instruction('')
    commands = bench.run(2.0)
    assert commands[-1] is None
    assert (bench.state, bench.reason) == (StateName.WAITING, 'no instruction')
    bench.runtime.set_instruction('reach')
    assert speed(bench.run(0.5)[-1]) == pytest.approx(0.1)
    assert [memory.reasons for memory in memories(bench)] == [[], ['instruction']]


def test_without_an_instruction_nothing_moves() -> None:
    bench = Bench(instruction='')
    assert bench.run(1.0) == [None] * 50
    assert bench.reason == 'no instruction'
    assert not bench.policy.observations


@pytest.mark.parametrize('text', ['x' * 1000, 'greife den roten Würfel 🟥', '把杯子推过去'])
def test_any_text_is_an_instruction(text: str) -> None:
    bench = Bench(instruction='')
    bench.runtime.set_instruction(text)
    bench.run(0.5)
    assert bench.state == StateName.RUNNING
    assert bench.policy.observations[-1].instruction == text


def test_a_reset_and_a_pause_clear_the_memory_as_a_service() -> None:
    bench = running()
    bench.runtime.reset_episode()
    bench.run(0.5)
    bench.runtime.pause(True)
    bench.run(0.5)
    bench.runtime.pause(False)
    bench.run(0.5)
    assert [memory.reasons for memory in memories(bench)] == [[], ['service'], ['service']]


def test_an_activation_begins_an_episode_whatever_came_before_its_first_inference() -> None:
    bench = Bench(instruction='')
    bench.runtime.set_instruction('reach')
    bench.runtime.reset_episode()
    bench.run(0.5)
    assert [memory.reasons for memory in memories(bench)] == [[]]


def test_a_new_activation_begins_an_episode() -> None:
    bench = running()
    bench.runtime.begin_deactivate()
    bench.run(1.0)
    bench.runtime.activate()
    bench.run(0.5)
    assert [memory.reasons for memory in memories(bench)] == [[], []]


@pytest.mark.parametrize('method', ['reset', 'pause', 'instruction', 'deactivate'])
def test_a_chunk_inferred_across_an_epoch_is_dropped(method: str) -> None:
    bench = running()
    bench.latency_s = 0.3
    while bench.job is None:
        bench.step()
    late, bench.job = bench.job, None
    if method == 'reset':
        bench.runtime.reset_episode()
    elif method == 'pause':
        bench.runtime.pause(True)
        bench.runtime.pause(False)
    elif method == 'instruction':
        bench.runtime.set_instruction('push')
    else:
        bench.runtime.begin_deactivate()
        bench.run(1.0)
        bench.runtime.activate()
    report = bench.runtime.finish_inference(bench.runtime.run_inference(late))
    assert not report.accepted
    assert report.why_not == 'a new episode, a pause or a deactivation came in between'
    assert bench.runtime.statistics().chunk_remaining_s == 0.0
    assert bench.runtime.statistics().discarded == 1


def test_an_inference_across_a_reset_does_not_touch_the_new_episodes_memory() -> None:
    bench = running()
    bench.latency_s = 10.0
    while bench.job is None:
        bench.step()
    late, bench.job, bench.latency_s = bench.job, None, 0.0
    bench.runtime.reset_episode()
    bench.run(0.1)
    current = memories(bench)[-1]
    late.memory.clear('layout')
    bench.runtime.finish_inference(bench.runtime.run_inference(late))
    assert current.reasons == ['service']
    bench.run(1.0)
    assert bench.policy.memories[-1] is current


@pytest.mark.parametrize('change', ['reset', 'instruction'])
def test_the_arm_decelerates_until_the_first_chunk_of_the_new_episode(change: str) -> None:
    settings = control(limits=control().limits.__class__(0.25, 0.8, 0.5, 1.0))
    bench = Bench(FakePolicy(lambda _: steady_chunk(0.2)), settings=settings, latency_s=0.1)
    bench.run(1.5)
    change_s = bench.now_s
    if change == 'reset':
        bench.runtime.reset_episode()
    else:
        bench.runtime.set_instruction('push')
    bench.job = None
    speeds = [speed(command) for command in bench.run(0.5)]
    assert bench.reports[-1].job.stamp_s >= change_s
    lowest = int(np.argmin(speeds))
    assert np.diff(speeds[: lowest + 1]) == pytest.approx([-0.01] * lowest)
    assert speeds[lowest] > 0.0
    assert speeds[-1] == pytest.approx(0.2)


def test_pause_drops_the_chunk_and_goes_on_from_a_fresh_observation() -> None:
    bench = running()
    bench.runtime.pause(True)
    commands = bench.run(1.5)
    assert commands[-1] is None
    assert (bench.state, bench.reason) == (StateName.PAUSED, 'paused')
    inferences = len(bench.policy.observations)
    bench.runtime.pause(False)
    resumed_s = bench.now_s
    assert bench.runtime.begin_inference() is None
    assert bench.run(0.5)[-1] is not None
    assert len(bench.policy.observations) > inferences
    assert bench.policy.observations[inferences].stamp_s >= resumed_s


def test_pausing_twice_is_pausing_once() -> None:
    bench = running()
    bench.runtime.pause(True)
    epoch = bench.runtime.statistics().epoch
    bench.runtime.pause(True)
    assert bench.runtime.statistics().epoch == epoch


def test_an_interrupted_stream_clears_the_memory() -> None:
    bench = running(settings=control(starvation_grace_s=2.0))
    bench.inputs.clear()
    bench.run(0.6)
    bench.inputs = {'front', 'ee_pose'}
    bench.run(1.0)
    assert [memory.reasons for memory in memories(bench)] == [['observation_gap']]


def test_slow_inference_alone_is_no_gap() -> None:
    bench = Bench(latency_s=0.8)
    bench.run(5.0)
    assert len(bench.reports) > 3
    assert [memory.reasons for memory in memories(bench)] == [[]]


def test_a_reference_older_than_allowed_is_renewed() -> None:
    bench = running(pruning=PruningSettings(method='none', max_reference_age_s=0.5))
    bench.run(2.0)
    reasons = memories(bench)[0].reasons
    assert set(reasons) == {'max_age'}
    assert 3 <= len(reasons) <= 5


def test_the_reference_may_be_as_old_as_it_likes_by_default() -> None:
    bench = running()
    bench.run(8.0)
    assert memories(bench)[0].reasons == []


def test_pruning_settings_change_between_two_inferences() -> None:
    bench = running(latency_s=0.06)
    while bench.job is None:
        bench.step()
    bench.runtime.apply(pruning=PruningSettings(method='safe'))
    assert bench.job.pruning.method == 'none'
    bench.run(0.5)
    methods = [settings.method for settings in bench.policy.settings]
    assert methods == sorted(methods)
    assert set(methods) == {'none', 'safe'}


def test_control_settings_change_at_a_tick() -> None:
    bench = running()
    bench.runtime.apply(control(limits=control().limits.__class__(0.05, 1.0, 1e6, 1e6)))
    assert speed(bench.step()) == pytest.approx(0.05)
    assert bench.runtime.statistics().speed_clipped_ticks == 1
