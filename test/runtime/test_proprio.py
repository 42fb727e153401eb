"""The proprioception vector and what is wrong with a layout or its sources."""

from __future__ import annotations

import math

import numpy as np
import pytest
from runtime_fakes import control

from safe_vla_ros.errors import ObservationError, ParameterError
from safe_vla_ros.runtime.geometry import Pose, quaternion_from_rotation_vector
from safe_vla_ros.runtime.proprio import (
    assemble_proprio,
    check_layout,
    count_numbers,
    joints_in_use,
    needs_pose,
)
from safe_vla_ros.runtime.settings import Workspace

POSE = Pose(np.array([0.1, 0.2, 0.3]), quaternion_from_rotation_vector(np.array([0, 0, 0.5])))
TURN_DOWN = np.array([0.9994, -0.0266, -0.0226, -0.0058])
DOWN = Pose(POSE.position_m, TURN_DOWN / np.linalg.norm(TURN_DOWN))
"""A hand that points down, as in LIBERO."""

JOINTS = {'left': 0.01, 'right': -0.02, 'elbow': 1.5}


def assemble(*layout: str, pose: Pose | None = POSE) -> list[float]:
    return assemble_proprio(
        layout, pose=pose, joints=JOINTS, gripper_joint_names=('left', 'right')
    ).tolist()


def test_parts_stand_in_the_order_of_the_layout() -> None:
    vector = assemble('zero', 'joint:elbow', 'gripper_joints', 'ee_position')
    assert vector == [0.0, 1.5, 0.01, -0.02, 0.1, 0.2, 0.3]


def test_orientation_comes_in_three_forms() -> None:
    assert assemble('ee_axis_angle') == pytest.approx([0, 0, 0.5])
    assert assemble('ee_euler_xyz') == pytest.approx([0, 0, 0.5])
    assert assemble('ee_quaternion') == pytest.approx([0, 0, math.sin(0.25), math.cos(0.25)])


@pytest.mark.parametrize(
    'part', ['ee_axis_angle', 'ee_axis_angle_down', 'ee_euler_xyz', 'ee_quaternion']
)
def test_the_sign_of_the_quaternion_changes_nothing(part: str) -> None:
    flipped = Pose(DOWN.position_m, -DOWN.quaternion_xyzw)
    assert assemble(part, pose=flipped) == pytest.approx(assemble(part, pose=DOWN))


def test_the_rotation_of_a_hand_that_points_down_does_not_jump_at_pi() -> None:
    turns = (math.pi - 0.01, math.pi, math.pi + 0.01)
    poses = [
        Pose(POSE.position_m, quaternion_from_rotation_vector(np.array([turn, 0.0, 0.0])))
        for turn in turns
    ]
    vectors = [assemble('ee_axis_angle_down', pose=pose) for pose in poses]
    assert vectors == [pytest.approx([turn, 0.0, 0.0]) for turn in turns]
    assert assemble('ee_axis_angle', pose=poses[-1])[0] == pytest.approx(0.01 - math.pi)


def test_the_downward_rotation_is_the_one_that_robosuite_observes() -> None:
    # robosuite's formula is q[:3] * 2 acos(w) / sqrt(1 - w^2), with MuJoCo's sign of q.
    q = DOWN.quaternion_xyzw
    expected = q[:3] * 2 * math.acos(q[3]) / math.sqrt(1 - q[3] ** 2)
    assert np.linalg.norm(expected) > math.pi
    assert assemble('ee_axis_angle_down', pose=DOWN) == pytest.approx(expected)


@pytest.mark.parametrize(
    'layout',
    [
        (),
        ('ee_position', 'ee_axis_angle', 'gripper_joints'),
        ('ee_quaternion', 'zero', 'joint:elbow', 'ee_euler_xyz'),
    ],
)
def test_the_length_of_the_vector_is_known_before_there_is_one(layout: tuple[str, ...]) -> None:
    assert count_numbers(layout, ('left', 'right')) == len(assemble(*layout))


def test_the_libero_state_has_eight_numbers() -> None:
    assert len(assemble('ee_position', 'ee_axis_angle_down', 'gripper_joints')) == 8


@pytest.mark.parametrize(
    ('layout', 'sentence'),
    [
        (('ee_speed',), "unknown proprioception part 'ee_speed'; allowed are ee_position"),
        (('joint:wrist',), "joint_states lacks joint 'wrist'; it has"),
    ],
)
def test_a_part_without_a_source_is_refused(layout: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ObservationError, match=sentence):
        assemble(*layout)


def test_a_missing_pose_is_refused() -> None:
    with pytest.raises(ObservationError, match="'ee_position' needs ee_pose"):
        assemble('ee_position', pose=None)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ObservationError, match='not finite'):
        assemble('ee_position', pose=Pose(np.array([value, 0, 0]), POSE.quaternion_xyzw))


@pytest.mark.parametrize('layout', [('ee_speed',), ('joint:',), ('gripper_joints',)])
def test_a_layout_is_checked_before_anything_runs(layout: tuple[str, ...]) -> None:
    with pytest.raises(ParameterError, match=r'proprio\.layout'):
        check_layout(layout, ())


@pytest.mark.parametrize(
    ('needed', 'layout', 'changes'),
    [
        (False, ('gripper_joints', 'zero'), {}),
        (True, ('zero', 'ee_euler_xyz'), {}),
        (True, (), {'frame': 'ee'}),
        (True, (), {'command_type': 'pose'}),
        (True, (), {'workspace': Workspace((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))}),
    ],
)
def test_the_pose_is_needed_by_the_layout_or_by_the_control_side(
    needed: bool, layout: tuple[str, ...], changes: dict[str, object]
) -> None:
    assert needs_pose(control(**changes), layout) == needed


def test_joints_in_use_are_read_off_the_layout() -> None:
    layout = ('gripper_joints', 'joint:elbow', 'joint:left')
    assert joints_in_use(layout, ('left', 'right')) == ('left', 'right', 'elbow')
