"""Whatever happens in whatever order, what stands next to the arm holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_fakes import Bench, FakePolicy, ManualClock, chunk, control, speed

from safe_vla_ros.runtime import Command, InferenceJob, MotionLimits, StateName
from safe_vla_ros.types import ActionChunk, Observation

LIMITS = MotionLimits(0.25, 0.8, 1.0, 3.0)
LONGEST_TICK_S = 0.1

EVENTS = (
    'pause',
    'resume',
    'reset',
    'other task',
    'no task',
    'camera dies',
    'camera returns',
    'begin',
    'finish',
    'policy fails',
    'policy not finite',
    'policy mends',
    'deactivate',
    'activate',
)
scripts = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(1, 40), st.floats(0.003, 0.06)),
    min_size=4,
    max_size=20,
)


class Arm:
    """Drives a bench by a script and watches every command."""

    def __init__(self, blending: str, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.mood = 'good'
        self.bench = Bench(
            FakePolicy(self.plan),
            settings=control(limits=LIMITS, blending=blending),
            steady_clock=ManualClock(700.0),
        )
        self.jobs: list[InferenceJob] = []
        self.tasks = itertools.count()
        self.last: Command | None = None
        self.last_s = self.bench.now_s
        self.forbidden_since_s: float | None = None
        self.moved = False
        self.accepted_since_halt = False

    def plan(self, _: Observation) -> ActionChunk:
        if self.mood == 'fails':
            raise RuntimeError('fails')
        moves = self.rng.normal(0.0, 0.02, (8, 3))
        if self.mood == 'not finite':
            moves[3, 1] = math.nan
        return chunk(moves, self.rng.normal(0.0, 0.05, (8, 3)), self.rng.random(8))

    def act(self, event: str) -> None:
        runtime, inputs = self.bench.runtime, self.bench.inputs
        actions: dict[str, Callable[[], None]] = {
            'pause': lambda: runtime.pause(True),
            'resume': lambda: runtime.pause(False),
            'reset': runtime.reset_episode,
            'other task': lambda: runtime.set_instruction(f'task {next(self.tasks)}'),
            'no task': lambda: runtime.set_instruction(''),
            'camera dies': lambda: inputs.discard('front'),
            'camera returns': lambda: inputs.add('front'),
            'deactivate': runtime.begin_deactivate,
            'activate': lambda: runtime.activate() if runtime.halted else None,
        }
        if event in actions:
            actions[event]()
        elif event.startswith('policy'):
            moods = {'policy fails': 'fails', 'policy not finite': 'not finite'}
            self.mood = moods.get(event, 'good')
        if event in {'pause', 'reset', 'other task', 'no task', 'deactivate'}:
            self.accepted_since_halt = False

    def clear_every_reason(self) -> None:
        """Do what users can do to have the arm move again."""
        while self.bench.runtime._permission.closing and not self.bench.runtime.halted:
            self.tick(0.02)
        remedies = ('activate', 'resume', 'other task', 'camera returns', 'policy mends', 'reset')
        for event in remedies:
            self.act(event)
        self.jobs.clear()

    def infer(self, event: str) -> None:
        runtime = self.bench.runtime
        if event != 'finish' and (job := runtime.begin_inference()):
            self.jobs.append(job)
        if event != 'begin' and self.jobs:
            report = runtime.finish_inference(runtime.run_inference(self.jobs.pop(0)))
            if report.accepted:
                self.accepted_since_halt = True
                assert report.job.stamp_s >= self.bench.runtime._controller.fresh_after_s

    def tick(self, interval_s: float) -> None:
        self.bench.feed()
        before = self.bench.runtime._controller.generation
        command = self.bench.runtime.tick()
        if self.bench.runtime._controller.generation != before:
            self.accepted_since_halt = False
        self.watch(command)
        self.last, self.last_s = command, self.bench.now_s
        self.bench.pass_time(interval_s)

    def watch(self, command: Command | None) -> None:
        elapsed_s = max(min(self.bench.now_s - self.last_s, LONGEST_TICK_S), 0.02)
        change = speed(command) - speed(self.last)
        assert speed(command) <= LIMITS.max_linear_speed + 1e-9
        if not self.accepted_since_halt:
            assert self.bench.state is not StateName.RUNNING
        if command is None:
            assert speed(self.last) == 0.0
            return
        assert np.linalg.norm(command.angular_rad_s) <= LIMITS.max_angular_speed + 1e-9
        for name, limit in (('linear_m_s', 1.0), ('angular_rad_s', 3.0)):
            was = np.zeros(3) if self.last is None else getattr(self.last, name)
            assert np.linalg.norm(getattr(command, name) - was) <= limit * elapsed_s + 1e-9
        if not self.accepted_since_halt:
            assert self.last is not None
            assert change <= 1e-9
            assert command.gripper is None


@settings(max_examples=40, deadline=None)
@given(
    scripts,
    st.sampled_from(['none', 'crossfade', 'ensemble', 'cogact_ensemble']),
    st.integers(0, 2**16),
)
def test_limits_hold_and_nothing_follows_a_halt_reason_in_any_order_of_events(
    script: list[tuple[str, int, float]], blending: str, seed: int
) -> None:
    arm = Arm(blending, seed)
    for event, ticks, interval_s in script:
        arm.act(event)
        for _ in range(ticks):
            arm.infer(event)
            arm.tick(interval_s)
    arm.clear_every_reason()
    played = arm.bench.runtime.statistics().played_ticks
    for _ in range(50):
        arm.infer('both')
        arm.tick(0.02)
    assert arm.bench.state is StateName.RUNNING
    assert arm.bench.runtime.statistics().played_ticks > played


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(['pause', 'no task', 'camera dies', 'deactivate', 'begin']),
    st.floats(0.005, 0.09),
    st.integers(0, 2**16),
)
def test_every_halt_ends_in_silence(event: str, interval_s: float, seed: int) -> None:
    arm = Arm('crossfade', seed)
    for _ in range(60):
        arm.infer('both')
        arm.tick(0.02)
    arm.act(event)
    jobs = len(arm.bench.policy.observations)
    begun_s = arm.bench.now_s
    while arm.bench.now_s < begun_s + 2.0:
        arm.tick(interval_s)
    assert arm.last is None
    assert len(arm.bench.policy.observations) == jobs


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.005, 0.035), min_size=40, max_size=40), st.integers(0, 2**16))
def test_with_jittered_ticks_the_arm_goes_where_the_chunks_say(
    intervals: list[float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    moves = rng.normal(0.0, 0.01, (20, 3))
    bench = Bench(FakePolicy(lambda _: chunk(moves)), settings=control(execute_steps=20))
    bench.feed()
    bench.infer()
    bench.inputs.clear()
    begin, begun_s = bench.position, bench.now_s
    for interval_s in intervals:
        if bench.now_s + interval_s - begun_s > 0.5:
            break
        command = bench.runtime.tick()
        assert command is not None
        bench.position = bench.position + command.linear_m_s * interval_s
        bench.pass_time(interval_s)
    played = (bench.now_s - begun_s) / 0.05
    whole, part = int(played), played - int(played)
    wanted = moves[:whole].sum(0) + part * moves[whole]
    fastest = np.abs(moves).max() / 0.05
    assert bench.position - begin == pytest.approx(wanted, abs=4 * fastest * 0.035)
