"""Twists in the end effector's frame, pose targets, and the planned path."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_fakes import PERIOD_S, Bench, FakePolicy, chunk, control, steady_chunk

from safe_vla_ros.runtime import MotionLimits
from safe_vla_ros.runtime.geometry import (
    Pose,
    multiply,
    quaternion_from_rotation_vector,
    rotate,
    rotation_vector_from_quaternion,
)
from safe_vla_ros.runtime.planned_path import planned_path
from safe_vla_ros.runtime.pose_target import LARGEST_LEAD_M, PoseTarget

QUARTER_TURN = quaternion_from_rotation_vector(np.array([0.0, 0.0, np.pi / 2]))
LIMITS = MotionLimits(0.25, 0.8, 1.0, 3.0)


def screw_chunk() -> FakePolicy:
    """Return a policy that moves along x and turns about x."""
    moves = np.tile([0.1 * PERIOD_S, 0.0, 0.0], (8, 1))
    turns = np.tile([0.4 * PERIOD_S, 0.0, 0.0], (8, 1))
    return FakePolicy(lambda _: chunk(moves, turns))


def test_actions_in_the_frame_of_the_end_effector_are_turned_with_it() -> None:
    bench = Bench(screw_chunk(), settings=control(frame='ee'))
    bench.quaternion = QUARTER_TURN
    command = bench.run(0.5)[-1]
    assert command is not None
    assert command.linear_m_s == pytest.approx([0.0, 0.1, 0.0])
    assert command.angular_rad_s == pytest.approx([0.0, 0.4, 0.0])


def test_actions_in_the_base_frame_are_not() -> None:
    bench = Bench(screw_chunk())
    bench.quaternion = QUARTER_TURN
    command = bench.run(0.5)[-1]
    assert command is not None
    assert command.linear_m_s == pytest.approx([0.1, 0.0, 0.0])


def test_actions_in_the_frame_of_the_end_effector_need_its_pose() -> None:
    bench = Bench(screw_chunk(), settings=control(frame='ee'))
    bench.inputs.discard('ee_pose')
    assert bench.run(0.5) == [None] * 25
    assert bench.reason == 'no ee_pose yet'


def test_a_pose_target_begins_where_the_arm_is_and_moves_as_planned() -> None:
    bench = Bench(screw_chunk(), settings=control(command_type='pose'))
    commands = [command for command in bench.run(0.4) if command is not None]
    targets = [command.target for command in commands]
    along = [target.position_m[0] for target in targets if target is not None]
    assert len(along) == 20
    assert along == pytest.approx([0.4 + 0.1 * 0.02 * (i + 1) for i in range(20)])
    last = targets[-1]
    assert last is not None
    assert rotation_vector_from_quaternion(last.quaternion_xyzw) == pytest.approx(
        [0.4 * 0.4, 0.0, 0.0]
    )


def test_after_silence_a_pose_target_begins_anew_where_the_arm_is() -> None:
    bench = Bench(settings=control(command_type='pose', limits=LIMITS))
    bench.run(0.5)
    bench.runtime.pause(True)
    bench.run(2.0)
    bench.position = np.array([1.0, 1.0, 1.0])
    bench.runtime.pause(False)
    command = next(command for command in bench.run(0.5) if command is not None)
    assert command.target is not None
    assert command.target.position_m == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)


def test_a_pose_target_waits_for_an_arm_that_is_held_back() -> None:
    bench = Bench(settings=control(command_type='pose'))
    for _ in range(400):
        bench.feed()
        bench.infer()
        command = bench.runtime.tick()
        bench.pass_time()
    assert command is not None
    assert command.target is not None
    assert np.linalg.norm(command.target.position_m - bench.position) <= LARGEST_LEAD_M + 0.01
    assert bench.runtime.statistics().lead_clipped_ticks > 0


def test_a_target_that_leads_too_far_may_come_back() -> None:
    target = PoseTarget()
    pose = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    target.start(pose)
    target.command(np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 3.0]), 0.02)
    target.advance(0.2)
    assert target.leads_too_far(pose, np.array([0.01, 0.0, 0.0]), np.zeros(3))
    assert target.leads_too_far(pose, np.zeros(3), np.array([0.0, 0.0, 0.01]))
    back = np.array([-0.01, 0.0, 0.0]), np.array([0.0, 0.0, -0.01])
    assert not target.leads_too_far(pose, *back)


def test_in_twist_mode_there_is_no_target() -> None:
    assert all(command.target is None for command in Bench().run(0.5) if command)


def test_the_planned_path_leads_from_the_pose_along_the_rest_of_the_chunk() -> None:
    bench = Bench(FakePolicy(lambda _: steady_chunk(0.1, steps=8)), latency_s=1e9)
    bench.latency_s = 0.0
    bench.run(0.1)
    bench.latency_s = 1e9
    path = bench.runtime.planned_path()
    assert path[0].position_m == pytest.approx(bench.position, abs=0.003)
    ahead = path[-1].position_m - path[0].position_m
    assert ahead == pytest.approx([0.1 * 0.32, 0.0, 0.0])


def test_without_a_chunk_or_a_pose_there_is_no_path() -> None:
    bench = Bench()
    assert bench.runtime.planned_path() == []
    bench.inputs.discard('ee_pose')
    bench.run(0.5)
    assert bench.runtime.planned_path() == []


def test_a_path_in_the_frame_of_the_end_effector_turns_as_it_goes() -> None:
    step = np.array([0.1, 0.0, 0.0, 0.0, 0.0, np.pi / 2])
    start = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
    path = planned_path(start, [(1.0, step)] * 4, frame='ee')
    assert path[1].position_m == pytest.approx([0.1, 0.0, 0.0])
    assert path[2].position_m == pytest.approx([0.1, 0.1, 0.0])
    assert path[4].position_m == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    turned = multiply(path[1].quaternion_xyzw, path[1].quaternion_xyzw)
    assert rotate(turned, np.array([1.0, 0, 0])) == pytest.approx([-1.0, 0.0, 0.0], abs=1e-9)
