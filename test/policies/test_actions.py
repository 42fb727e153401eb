"""Model actions become metres, radians and openings, or an error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.actions import to_chunk
from safe_vla_ros.types import PolicySettings, PruningRecord

RECORD = PruningRecord('none', {}, {}, False, None, None, 0.0, {}, {}, {}, 0, 0)


def make_settings(**changes):
    values = {
        'cameras': ('a',),
        'proprio_layout': (),
        'gripper_joint_names': (),
        'linear_scale_m': 0.02,
        'angular_scale_rad': 0.5,
        'rotation': 'axis_angle',
        'gripper_open_value': -1.0,
        'gripper_closed_value': 1.0,
        'rotate_180': False,
        'mirror': False,
        'center_crop': False,
        'jpeg_roundtrip': False,
    }
    return PolicySettings(**{**values, **changes})


def test_scales_and_the_grippers_sign():
    actions = np.array([[1.0, -0.5, 0.0, 0.2, 0.0, -0.4, 1.0], [0, 0, 0, 0, 0, 0, -1.0]])
    chunk = to_chunk(actions, make_settings(), RECORD)
    np.testing.assert_allclose(chunk.translation_m[0], [0.02, -0.01, 0.0])
    np.testing.assert_allclose(chunk.rotation_rad[0], [0.1, 0.0, -0.2])
    np.testing.assert_allclose(chunk.gripper, [0.0, 1.0])


def test_without_rotation_there_is_none():
    chunk = to_chunk(np.ones((3, 4)), make_settings(), RECORD)
    assert not chunk.rotation_rad.any()


def test_openings_beyond_the_models_values_are_clipped():
    actions = np.array([[0, 0, 0, -3.0], [0, 0, 0, 3.0]])
    np.testing.assert_allclose(to_chunk(actions, make_settings(), RECORD).gripper, [1.0, 0.0])


@given(st.tuples(*[st.floats(-3.1, 3.1)] * 3))
def test_euler_angles_give_the_same_rotation(angles):
    settings = make_settings(rotation='euler_xyz', angular_scale_rad=1.0)
    chunk = to_chunk(np.array([[0, 0, 0, *angles, 0]]), settings, RECORD)
    expected = Rotation.from_euler('xyz', angles)
    difference = Rotation.from_rotvec(chunk.rotation_rad[0]) * expected.inv()
    assert difference.magnitude() < 1e-6
    assert np.linalg.norm(chunk.rotation_rad[0]) <= np.pi + 1e-9


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_refuses_the_whole_chunk(value):
    actions = np.zeros((8, 7))
    actions[5, 2] = value
    with pytest.raises(NonFiniteError, match='action 5, dimension 2'):
        to_chunk(actions, make_settings(), RECORD)


@pytest.mark.parametrize('shape', [(8,), (8, 14), (2, 8, 7)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r'\[T, 4\] or \[T, 7\]'):
        to_chunk(np.zeros(shape), make_settings(), RECORD)
