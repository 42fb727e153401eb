"""Which bowl was lifted first is known at the end of an episode, and why can be asked."""

from types import SimpleNamespace

import numpy as np
import pytest

from safe_vla_ros.sim.lifting import ASKED, OTHER, LiftWatch
from safe_vla_ros.sim.retold import RetoldPolicy
from safe_vla_ros.types import Observation, PruningSettings


def first_lifted(*heights):
    """Heights of the asked and the other bowl, frame by frame."""
    watch = LiftWatch()
    for asked, other in heights:
        table = SimpleNamespace(bowl=np.array([0, 0, asked]), other_bowl=np.array([0, 0, other]))
        watch(None, SimpleNamespace(state=table), None)
    return watch.first


def test_a_bowl_counts_as_lifted_above_where_it_stood():
    assert first_lifted((0.9, 1.1), (0.93, 1.1), (0.95, 1.1)) == ASKED
    assert first_lifted((0.9, 1.1), (0.9, 1.15)) == OTHER


def test_a_bowl_that_is_pushed_or_tilted_is_not_lifted():
    assert first_lifted((0.9, 1.1), (0.93, 1.13), (0.88, 0.9)) is None


def test_the_first_one_stays_the_first():
    assert first_lifted((0.9, 0.9), (0.9, 0.95), (1.0, 0.9), (1.0, 0.9)) == OTHER


def test_a_suite_without_two_bowls_is_not_watched():
    watch = LiftWatch()
    watch(None, SimpleNamespace(state=None), None)
    assert watch.first is None


@pytest.mark.parametrize('sentence', ['pick up the other one', ''])
def test_a_policy_can_be_told_something_else(sentence):
    heard = []

    class Listener:
        spec = 'its spec'

        def new_episode(self):
            return 'its memory'

        def infer(self, observation, memory, pruning):
            heard.append((observation.instruction, memory))
            return 'its chunk'

    policy = RetoldPolicy(Listener(), sentence)
    observation = Observation({}, 'pick up the bowl', None, {})
    chunk = policy.infer(observation, policy.new_episode(), PruningSettings('none'))
    assert (policy.spec, chunk) == ('its spec', 'its chunk')
    assert heard == [(sentence, 'its memory')]
    assert observation.instruction == 'pick up the bowl'
