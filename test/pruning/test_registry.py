"""Which methods there are, and who may run them."""

from dataclasses import replace

import pytest

from safe_vla_ros.errors import ParameterError
from safe_vla_ros.pruning import PRUNER_NAMES, STUDY_NAMES, make_pruner
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.expert_policy import EXPERT_SPEC
from safe_vla_ros.types import STUDY_METHODS

ONLY_STUDIES = 'oracle runs every step twice and is for studies in simulation only'


def test_a_robot_has_eleven_methods_and_a_study_one_more():
    assert set(PRUNER_NAMES) == {
        'none',
        'random',
        'grid',
        'fastv',
        'sparsevlm',
        'divprune',
        'vla_pruner',
        'safe',
        'merge',
        'vla_cache',
        'refresh',
    }
    assert set(STUDY_NAMES) - set(PRUNER_NAMES) == set(STUDY_METHODS) == {'oracle'}


@pytest.mark.parametrize('name', STUDY_NAMES)
def test_every_method_says_what_it_does(name):
    documentation = type(make_pruner(name)).__doc__

    assert documentation
    assert documentation.strip()


def test_the_registry_names_its_methods_when_asked_for_another():
    with pytest.raises(ParameterError, match=r"pruning\.method is 'magic', allowed is one of safe"):
        make_pruner('magic')


def test_a_robot_refuses_a_method_for_studies_wherever_it_is_asked_for():
    with pytest.raises(ParameterError, match=ONLY_STUDIES):
        resolve({'pruning.method': 'oracle'}, EXPERT_SPEC, pruner_names=PRUNER_NAMES)
    own = replace(EXPERT_SPEC, pruning={**EXPERT_SPEC.pruning, 'method': 'oracle'})
    with pytest.raises(ParameterError, match=ONLY_STUDIES):
        resolve({}, own, pruner_names=PRUNER_NAMES)


@pytest.mark.parametrize('method', STUDY_NAMES)
def test_simulation_runs_any_method(method):
    assert resolve_episode(EXPERT_SPEC, {'pruning.method': method}).pruning.method == method
