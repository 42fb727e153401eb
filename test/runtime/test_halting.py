"""Every reason ends a motion in the same way: decelerate, zeros, silence; and it says why."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from runtime_fakes import (
    Bench,
    FakePolicy,
    ManualClock,
    chunk,
    control,
    shape_of_halt,
    speed,
    steady_chunk,
)

from safe_vla_ros.runtime import MotionLimits, StateName, Workspace
from safe_vla_ros.runtime.halt_reasons import HaltKind
from safe_vla_ros.types import ActionChunk, MessageHeader, Observation

LIMITS = MotionLimits(0.25, 0.8, 1.0, 3.0)
BOX = Workspace((0.0, -0.5, 0.0), (2.0, 0.5, 0.6), 0.05)
LAYOUT = ('ee_position', 'gripper_joints')


def moving(policy: FakePolicy | None = None, **changes: object) -> Bench:
    """Return a bench whose arm moves at 0.2 m/s within limits, with chunks of one second."""
    policy = policy or FakePolicy(lambda _: steady_chunk(0.2, steps=20))
    settings = control(**{'limits': LIMITS, 'workspace': BOX, **changes})
    bench = Bench(policy, settings=settings, layout=LAYOUT, gripper_joints=('left', 'right'))
    assert speed(bench.run(1.0)[-1]) == pytest.approx(0.2)
    return bench


def dead_camera(bench: Bench) -> None:
    bench.inputs.discard('front')


def dead_pose(bench: Bench) -> None:
    bench.inputs.discard('ee_pose')


def dead_joints(bench: Bench) -> None:
    bench.inputs.discard('joint_states')


def pause(bench: Bench) -> None:
    bench.runtime.pause(True)


def no_instruction(bench: Bench) -> None:
    bench.runtime.set_instruction('  ')


def deactivation(bench: Bench) -> None:
    bench.runtime.begin_deactivate()


def nan_pose(bench: Bench) -> None:
    bench.position = np.array([math.nan, 0.0, 0.3])


def zero_quaternion(bench: Bench) -> None:
    bench.quaternion = np.zeros(4)


def nan_joint(bench: Bench) -> None:
    bench.joints['right'] = math.nan


def out_of_the_box(bench: Bench) -> None:
    bench.position = np.array([2.06, 0.0, 0.3])


def slow_policy(bench: Bench) -> None:
    bench.latency_s = 100.0


def plan(bench: Bench, function: Callable[[Observation], ActionChunk]) -> None:
    bench.policy.plan = function


def nan_actions(bench: Bench) -> None:
    plan(bench, lambda _: chunk([[math.nan, 0, 0]] * 8))


def infinite_rotation(bench: Bench) -> None:
    plan(bench, lambda _: chunk(np.zeros((8, 3)), rotation_rad=[[0, 0, math.inf]] * 8))


def failing_policy(bench: Bench) -> None:
    def fail(_: Observation) -> ActionChunk:
        raise RuntimeError('out of memory')

    plan(bench, fail)


REASONS = {
    dead_camera: (
        StateName.STALE,
        "camera 'front' has a stamp older than observation_timeout_s (0.5 s)",
    ),
    dead_pose: (StateName.STALE, 'ee_pose has a stamp older than observation_timeout_s (0.5 s)'),
    dead_joints: (StateName.STALE, "joint_states with joint 'left' has a stamp older"),
    pause: (StateName.PAUSED, 'paused'),
    no_instruction: (StateName.WAITING, 'no instruction'),
    deactivation: (StateName.HALTING, 'deactivating'),
    nan_pose: (StateName.STALE, 'ee_pose holds a value that is not finite'),
    zero_quaternion: (StateName.STALE, 'ee_pose has a quaternion of length 0; it must be 1'),
    nan_joint: (StateName.STALE, "position of joint 'right' that is not finite"),
    out_of_the_box: (StateName.FAILED, 'the end effector is 0.06 m outside the workspace'),
    slow_policy: (
        StateName.STARVED,
        'no new chunk came within 0.1 s after the end of the last one',
    ),
    nan_actions: (
        StateName.FAILED,
        '3 inferences failed in a row; the last: the chunk holds actions',
    ),
    infinite_rotation: (
        StateName.FAILED,
        '3 inferences failed in a row; the last: the chunk holds',
    ),
    failing_policy: (StateName.FAILED, 'the last: RuntimeError: out of memory'),
}


@pytest.mark.parametrize('cause', REASONS, ids=lambda cause: cause.__name__)
@pytest.mark.parametrize('command_type', ['twist', 'pose'])
def test_every_reason_decelerates_then_repeats_zeros_then_is_silent(
    cause: Callable[[Bench], None], command_type: str
) -> None:
    bench = moving(command_type=command_type)
    cause(bench)
    commands = bench.run(3.0)
    begin = next(i for i, command in enumerate(commands) if speed(command) < 0.2 - 1e-9)
    speeds, zeros, silent = shape_of_halt(commands[begin:])
    at_once = cause is out_of_the_box and command_type == 'twist'
    ramp = [] if at_once else [0.2 - 0.02 * (i + 1) for i in range(9)]
    assert speeds == pytest.approx(ramp)
    assert zeros == 26
    assert silent > 0
    name, text = REASONS[cause]
    assert bench.state == name
    assert text in bench.reason
    if command_type == 'pose':
        targets = [command.target for command in commands[begin:] if command is not None]
        along = [target.position_m[0] for target in targets if target is not None]
        assert len(along) == len(targets)
        assert np.diff(along).min() >= 0.0
        assert np.ptp(along[len(speeds) - 1 :]) < 1e-3


@pytest.mark.parametrize('cause', REASONS, ids=lambda cause: cause.__name__)
def test_no_reason_publishes_anything_before_the_first_command(
    cause: Callable[[Bench], None],
) -> None:
    bench = Bench(settings=control(workspace=BOX), layout=LAYOUT, gripper_joints=('left', 'right'))
    cause(bench)
    assert bench.run(2.0) == [None] * 100
    assert bench.runtime.statistics().halts == {}


def test_a_halt_with_no_zeros_asked_for_ends_with_one_zero() -> None:
    bench = moving(halt_zero_duration_s=0.0)
    bench.runtime.pause(True)
    _, zeros, silent = shape_of_halt(bench.run(1.0))
    assert zeros == 1
    assert silent > 0


def test_a_second_reason_does_not_start_the_zeros_again() -> None:
    bench = moving()
    bench.runtime.pause(True)
    first = bench.run(0.5)
    bench.runtime.set_instruction('')
    bench.inputs.clear()
    _, zeros, _ = shape_of_halt(first + bench.run(3.0))
    assert zeros == 26


def test_the_last_twist_is_held_during_the_grace_time() -> None:
    bench = moving(FakePolicy(lambda _: steady_chunk(0.2)))
    bench.latency_s = 100.0
    states, speeds = [], []
    for _ in range(30):
        speeds.append(speed(bench.step()))
        states.append(bench.state)
    held = [v for s, v in zip(states, speeds, strict=True) if s == StateName.STARVED and v > 0.199]
    assert held == pytest.approx([0.2] * len(held))
    assert len(held) in {5, 6}


def test_a_chunk_in_time_ends_starvation_without_a_halt() -> None:
    bench = moving(FakePolicy(lambda _: steady_chunk(0.2)))
    bench.latency_s = 0.25
    commands = bench.run(2.0)
    assert min(speed(command) for command in commands) == pytest.approx(0.2)
    statistics = bench.runtime.statistics()
    assert statistics.starved_ticks > 0
    assert not statistics.halts


def test_a_refused_chunk_halts_and_a_good_one_resumes() -> None:
    plans = iter([steady_chunk(0.2)] * 3 + [chunk([[math.nan] * 3] * 8)])
    bench = Bench(
        FakePolicy(lambda _: next(plans, steady_chunk(0.2))), settings=control(limits=LIMITS)
    )
    speeds = [speed(command) for command in bench.run(1.2)]
    refused = next(report for report in bench.reports if report.outcome.non_finite)
    assert not refused.accepted
    assert refused.outcome.error == 'the chunk holds actions that are not finite'
    lowest = min(speeds[30:])
    assert lowest < 0.2
    assert speeds[-1] == pytest.approx(0.2)
    assert bench.runtime.statistics().halts == {HaltKind.NON_FINITE: 1}
    assert bench.runtime.statistics().consecutive_failures == 0


def test_single_failures_neither_halt_nor_latch() -> None:
    results = iter([True, True, False, False, True] * 20)

    def plan_or_fail(_: Observation) -> ActionChunk:
        if next(results):
            return steady_chunk(0.2)
        raise ValueError('bad luck')

    bench = Bench(FakePolicy(plan_or_fail))
    speeds = [speed(command) for command in bench.run(3.0)]
    assert speeds[5:] == pytest.approx([0.2] * len(speeds[5:]))
    assert bench.runtime.statistics().failures > 3


def test_a_failed_inference_is_tried_again_only_with_a_new_image() -> None:
    def fail(_: Observation) -> ActionChunk:
        raise ValueError('bad luck')

    bench = Bench(FakePolicy(fail))
    bench.feed()
    bench.infer()
    for _ in range(10):
        bench.infer()
    assert len(bench.reports) == 1
    assert 'has not sent a new image since the last inference' in bench.runtime._scheduler.waits_for


@pytest.mark.parametrize('cause', [out_of_the_box, failing_policy], ids=lambda c: c.__name__)
def test_failed_waits_for_a_reset(cause: Callable[[Bench], None]) -> None:
    bench = moving()
    cause(bench)
    bench.run(3.0)
    bench.position = np.array([0.4, 0.0, 0.3])
    bench.policy.plan = lambda _: steady_chunk(0.2)
    assert bench.run(1.0) == [None] * 50
    bench.runtime.pause(True)
    bench.runtime.pause(False)
    bench.runtime.set_instruction('another task')
    assert bench.run(1.0) == [None] * 50
    assert bench.state == StateName.FAILED
    bench.runtime.reset_episode()
    assert speed(bench.run(1.0)[-1]) == pytest.approx(0.2)
    assert bench.state == StateName.RUNNING


def test_failed_ends_with_a_new_activation() -> None:
    bench = moving()
    failing_policy(bench)
    bench.run(3.0)
    bench.runtime.begin_deactivate()
    assert bench.runtime.halted
    bench.policy.plan = lambda _: steady_chunk(0.2)
    bench.runtime.activate()
    assert speed(bench.run(1.0)[-1]) == pytest.approx(0.2)


@pytest.mark.parametrize('cause', [dead_camera, dead_pose, dead_joints], ids=lambda c: c.__name__)
def test_stale_resumes_alone_from_an_observation_made_after_the_halt(
    cause: Callable[[Bench], None],
) -> None:
    bench = moving()
    inputs = set(bench.inputs)
    cause(bench)
    bench.run(2.0)
    bench.inputs = inputs
    back_s = bench.now_s
    assert speed(bench.run(1.0)[-1]) == pytest.approx(0.2)
    resumed = next(r for r in bench.reports if r.accepted and r.job.stamp_s >= back_s)
    assert resumed.seam.skipped_actions == 0.0
    assert bench.runtime.statistics().halts == {HaltKind.STALE: 1}


def test_starved_resumes_alone_and_drops_the_chunk_that_came_too_late() -> None:
    bench = moving()
    bench.latency_s = 1.0
    bench.run(0.3)
    while bench.state != StateName.STARVED or not bench.runtime.statistics().halts:
        bench.step()
    halted_s = bench.now_s
    bench.latency_s = 0.04
    commands = bench.run(0.2)
    late = bench.reports[-2]
    assert late.why_not == 'the arm was halted in between'
    assert late.job.stamp_s < halted_s
    assert bench.reports[-1].accepted
    assert bench.reports[-1].job.stamp_s >= halted_s - bench.interval_s - 1e-9
    assert bench.state == StateName.RUNNING
    assert commands[-1] is not None


@pytest.mark.parametrize(
    ('shift_s', 'text'),
    [
        (-0.6, 'has a stamp older than observation_timeout_s (0.5 s)'),
        (0.2, 'has a stamp more than 0.1 s in the future; clocks must agree'),
        (None, 'has a zero stamp; every message needs its time of capture'),
    ],
)
def test_old_future_and_zero_stamps_are_stale_each_with_its_own_text(
    shift_s: float | None, text: str
) -> None:
    bench = moving()
    for _ in range(60):
        bench.feed(0.0 if shift_s is None else bench.now_s + shift_s)
        bench.infer()
        bench.runtime.tick()
        bench.pass_time()
    assert bench.state == StateName.STALE
    assert bench.reason == f"camera 'front' {text}"
    assert bench.runtime.tick() is None


def test_a_stamp_slightly_in_the_future_is_used() -> None:
    bench = Bench()
    for _ in range(50):
        bench.feed(bench.now_s + 0.09)
        bench.infer()
        bench.runtime.tick()
        bench.pass_time()
    assert bench.state == StateName.RUNNING


def test_a_stream_that_stopped_is_stale_by_receive_time() -> None:
    bench = Bench()
    bench.run(0.2)
    bench.feed(bench.now_s + 0.09)
    bench.inputs.clear()
    for _ in range(27):
        bench.runtime.tick()
        bench.pass_time()
    assert bench.state == StateName.STALE
    assert bench.reason == (
        "camera 'front' has sent nothing for longer than observation_timeout_s (0.5 s)"
    )


def test_a_pose_in_another_frame_halts() -> None:
    bench = moving()
    bench.inputs.discard('ee_pose')
    header = MessageHeader.at(bench.now_s, 'world')
    bench.runtime.put_pose(bench.position, bench.quaternion, header=header)
    bench.step()
    assert bench.state == StateName.STALE
    assert bench.reason == ("ee_pose is in frame 'world'; it must be in command_frame 'base_link'")


def test_a_pose_that_nobody_uses_halts_nobody() -> None:
    bench = Bench()
    bench.run(0.5)
    bench.runtime.put_pose([0, 0, math.nan], [0, 0, 0, 1], header=MessageHeader.at(0.0, 'moon'))
    bench.inputs.discard('ee_pose')
    bench.run(1.0)
    assert bench.state == StateName.RUNNING


def put_joints(bench: Bench, **positions: float) -> None:
    """Put a message with these positions by joint."""
    header = MessageHeader.at(bench.now_s)
    bench.runtime.put_joints(list(positions), list(positions.values()), header=header)


def test_a_joint_without_a_position_halts_until_a_good_message_names_it() -> None:
    bench = moving()
    bench.inputs.discard('joint_states')
    header = MessageHeader.at(bench.now_s)
    bench.runtime.put_joints(['right', 'wrist'], [0.1], header=header)
    bench.step()
    text = "joint_states with joint 'right' has 2 names and 1 positions; each name needs one"
    assert (bench.state, bench.reason) == (StateName.STALE, text)
    assert bench.runtime.statistics().halts == {HaltKind.INVALID: 1}
    put_joints(bench, left=0.1)
    bench.runtime.put_joints(['right'], [], header=MessageHeader.at(bench.now_s))
    bench.step()
    assert bench.reason == text
    for _ in range(50):
        put_joints(bench, left=0.1, right=0.1)
        bench.step()
    assert bench.state is StateName.RUNNING


@pytest.mark.parametrize(
    ('names', 'positions'),
    [
        (['wrist', 'elbow'], [0.1]),
        (['wrist'], [0.1, 0.2]),
        ([], [0.1]),
        (['left', 'right'], []),
        (['wrist'], [math.nan]),
        ([], []),
    ],
)
def test_joint_states_that_say_nothing_about_joints_in_use_are_ignored(
    names: list[str], positions: list[float]
) -> None:
    bench = moving()
    for _ in range(20):
        bench.runtime.put_joints(names, positions, header=MessageHeader.at(bench.now_s))
        bench.step()
    assert bench.state is StateName.RUNNING
    assert bench.runtime.statistics().halts == {}


def test_joints_may_come_from_several_publishers() -> None:
    bench = Bench(layout=LAYOUT, gripper_joints=('left', 'right'))
    bench.inputs.discard('joint_states')
    for _ in range(50):
        put_joints(bench, left=0.1, wrist=9.0)
        put_joints(bench, right=0.2)
        bench.step()
    assert bench.state == StateName.RUNNING
    proprio = bench.policy.observations[-1].proprio
    assert proprio is not None
    assert proprio.tolist()[3:] == [0.1, 0.2]


def test_every_joint_has_an_age_of_its_own() -> None:
    bench = moving()
    bench.inputs.discard('joint_states')
    for _ in range(30):
        put_joints(bench, left=0.1)
        bench.step()
    assert bench.state == 'stale'
    assert bench.reason == (
        "joint_states with joint 'right' has a stamp older than observation_timeout_s (0.5 s)"
    )


@pytest.mark.parametrize(
    ('missing', 'text'),
    [
        ('front', "no image of camera 'front' yet"),
        ('ee_pose', 'no ee_pose yet'),
        ('joint_states', "no joint_states with joint 'left' yet"),
    ],
)
def test_an_input_that_never_came_is_waited_for(missing: str, text: str) -> None:
    bench = Bench(layout=LAYOUT, gripper_joints=('left', 'right'))
    bench.inputs.discard(missing)
    assert bench.run(1.0) == [None] * 50
    assert (bench.state, bench.reason) == (StateName.WAITING, text)


def test_at_a_face_the_arm_stops_without_failing() -> None:
    bench = moving(workspace=Workspace((0.0, -0.5, 0.0), (0.7, 0.5, 0.6), 0.05))
    for _ in range(100):
        command = bench.step()
        assert command is not None
    assert bench.position[0] == pytest.approx(0.7, abs=2e-3)
    assert bench.state == StateName.RUNNING
    assert bench.runtime.statistics().workspace_clipped_ticks > 0


@pytest.mark.parametrize('cause', [deactivation], ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    'limits', [LIMITS, MotionLimits(0.25, 0.8, 0.02, 0.05)], ids=['usual', 'sluggish']
)
def test_deactivation_ends_within_two_seconds_of_the_steady_clock_while_time_stands_still(
    cause: Callable[[Bench], None], limits: MotionLimits
) -> None:
    bench = Bench(
        FakePolicy(lambda _: steady_chunk(0.2)),
        settings=control(halt_zero_duration_s=5.0),
        steady_clock=ManualClock(500.0),
    )
    bench.run(0.5)
    bench.runtime.apply(control(limits=limits, halt_zero_duration_s=5.0))
    cause(bench)
    assert bench.steady_clock is not None
    begun_s, commands = bench.steady_clock.now_s(), []
    while not bench.runtime.halted:
        commands.append(bench.runtime.tick())
        bench.steady_clock.advance(0.02)
        assert bench.steady_clock.now_s() - begun_s < 2.0
    speeds, zeros, _ = shape_of_halt(commands)
    assert len(speeds) > 5
    assert np.diff(speeds).max() < 0.0
    assert zeros > 10


def test_deactivation_at_rest_before_any_motion_is_immediate() -> None:
    bench = Bench()
    bench.runtime.begin_deactivate()
    assert bench.runtime.halted
    assert bench.runtime.tick() is None


def test_an_arm_in_deactivation_is_not_halted_before_it_is_silent() -> None:
    bench = moving()
    bench.runtime.begin_deactivate()
    commands = []
    while not bench.runtime.halted:
        commands.append(bench.step())
    assert len([command for command in commands if command is not None]) == 9 + 26
    assert bench.run(1.0) == [None] * 50


def test_a_clock_that_jumps_back_halts_and_begins_anew() -> None:
    bench = Bench(
        FakePolicy(lambda _: steady_chunk(0.2)),
        settings=control(limits=LIMITS),
        steady_clock=ManualClock(500.0),
    )
    bench.run(1.0)
    epoch = bench.runtime.statistics().epoch
    bench.clock.set(2.0)
    speeds = [speed(bench.runtime.tick())]
    assert bench.state == StateName.HALTING
    bench.pass_time()
    speeds += [speed(command) for command in bench.run(1.0)]
    assert speeds[0] == pytest.approx(0.18)
    assert speeds[-1] == pytest.approx(0.2)
    assert np.abs(np.diff([0.2, *speeds])).max() <= 0.02 + 1e-9
    assert bench.runtime.statistics().epoch == epoch + 1
    assert bench.runtime.statistics().halts == {HaltKind.CLOCK_JUMP: 1}
    assert len({id(memory) for memory in bench.policy.memories}) == 2


def test_a_clock_that_stands_still_moves_nothing_further() -> None:
    bench = moving()
    commands = [bench.runtime.tick() for _ in range(20)]
    assert [speed(command) for command in commands] == pytest.approx([0.2] * 20)


def test_a_chunk_in_flight_is_dropped_when_an_input_was_stale_for_a_moment_at_rest() -> None:
    bench = Bench(latency_s=1e9)
    for _ in range(2):
        bench.run(0.1)
        job = bench.job
        assert job is not None
        bench.inputs.discard('front')
        bench.run(0.6)
        assert bench.state == StateName.STALE
        bench.inputs.add('front')
        bench.run(0.1)
        assert bench.state == StateName.WAITING
        report = bench.runtime.finish_inference(bench.runtime.run_inference(job))
        assert report.why_not == 'the arm was halted in between'
        assert bench.step() is None
        bench.job = None
