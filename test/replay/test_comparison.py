import numpy as np
import pytest

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.replay.comparison import UnprunedChunks, action_difference
from safe_vla_ros.types import (
    ActionChunk,
    MessageHeader,
    Observation,
    PruningRecord,
    PruningSettings,
)

RECORD = PruningRecord('none', {}, {}, False, None, None, 0.9, {}, {}, {}, 0, 0)


def chunk(translation=(0.01, 0, 0), rotation=(0, 0, 0), gripper=1.0, actions=4):
    return ActionChunk(
        np.tile(np.array(translation, float), (actions, 1)),
        np.tile(np.array(rotation, float), (actions, 1)),
        np.full(actions, gripper),
        RECORD,
    )


def observation(stamp_s=1.0, instruction='push', proprio=(0.0,)):
    image = np.zeros((2, 2, 3), np.uint8)
    return Observation(
        {'c': image}, instruction, np.array(proprio), {'c': MessageHeader.at(stamp_s)}
    )


class CountingPolicy:
    def __init__(self, error=None):
        self.methods = []
        self.error = error

    def new_episode(self):
        return object()

    def infer(self, observation, memory, pruning):
        self.methods.append(pruning.method)
        if self.error:
            raise self.error
        return chunk()


def test_equal_chunks_do_not_differ():
    difference = action_difference(chunk(), chunk())
    assert difference.position_m == 0
    assert difference.rotation_rad == 0
    assert difference.gripper == 0
    assert difference.relative == 0


def test_differences_are_per_action_and_relative_to_the_unpruned_path():
    difference = action_difference(chunk((0.012, 0, 0), gripper=0.5), chunk())
    assert difference.position_m == pytest.approx(0.002)
    assert difference.gripper == pytest.approx(0.5)
    assert difference.relative == pytest.approx(0.2)


@pytest.mark.parametrize('angle', [1e-9, 1e-3, 0.5, 3.0])
def test_rotations_are_compared_by_their_angle(angle):
    difference = action_difference(chunk(rotation=(0, 0, angle)), chunk())
    assert difference.rotation_rad == pytest.approx(angle, rel=1e-6)


def test_opposite_vectors_of_half_a_turn_are_the_same_rotation():
    difference = action_difference(chunk(rotation=(0, 0, np.pi)), chunk(rotation=(0, 0, -np.pi)))
    assert difference.rotation_rad == pytest.approx(0, abs=1e-6)


def test_no_relative_difference_where_the_unpruned_chunk_stands_still():
    assert action_difference(chunk(), chunk((0, 0, 0))).relative is None


def test_unpruned_chunks_are_computed_once_per_observation():
    policy = CountingPolicy()
    unpruned = UnprunedChunks(policy, PruningSettings(method='safe'))
    for _ in range(3):
        assert unpruned.get(observation()) is not None
    assert policy.methods == ['none']
    for changed in (
        observation(stamp_s=2.0),
        observation(instruction='pull'),
        observation(proprio=(1.0,)),
    ):
        unpruned.get(changed)
    assert len(policy.methods) == 4


def test_chunks_of_the_unpruned_run_are_reused():
    policy = CountingPolicy()
    unpruned = UnprunedChunks(policy, PruningSettings())
    mine = chunk()
    unpruned.remember(observation(), mine)
    assert unpruned.get(observation()) is mine
    assert not policy.methods


def test_only_recent_observations_are_remembered():
    policy = CountingPolicy()
    unpruned = UnprunedChunks(policy, PruningSettings())
    for index in range(100):
        unpruned.get(observation(stamp_s=1.0 + index))
    unpruned.get(observation(stamp_s=1.0))
    assert len(policy.methods) == 101


@pytest.mark.parametrize('error', [NonFiniteError('layer 3'), RuntimeError('out of memory')])
def test_an_observation_that_the_policy_refuses_has_no_unpruned_chunk(error):
    policy = CountingPolicy(error)
    assert UnprunedChunks(policy, PruningSettings()).get(observation()) is None
