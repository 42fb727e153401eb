"""An episode as a job: what it notes, and that it can be told, disturbed and compared."""

from dataclasses import replace

import pytest
from mini_policies import write_untrained_policy

from safe_vla_ros.policies import read_spec
from safe_vla_ros.sim import evaluate
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.evaluate import EpisodeJob, run_job, scene_of
from safe_vla_ros.sim.tasks import SUITES


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    folder = str(write_untrained_policy(tmp_path_factory.mktemp('policies') / 'untrained'))
    values = {'policy': folder, 'pruning.method': 'random', 'execute_steps': 8}
    settings = resolve_episode(read_spec(folder), values)
    return EpisodeJob(folder, 'libero_spatial/0/other', 0, settings, init_state=1)


@pytest.fixture
def short(monkeypatch, shared_arm):
    """Episodes of 1.5 s on the arm that all tests share."""
    monkeypatch.setattr(evaluate, '_LOADED', [shared_arm])
    monkeypatch.setitem(SUITES, 'libero_spatial', 30)


def test_an_episode_says_what_it_did(short, job):
    episode = run_job(job)
    assert (episode.task, episode.seed, episode.init_state) == ('libero_spatial/0/other', 0, 1)
    assert episode.method == 'random'
    assert not episode.success
    assert episode.duration_s == pytest.approx(1.5)
    assert episode.inferences >= 3
    assert episode.tokens_kept < episode.tokens_total
    assert episode.first_lifted is None
    assert episode.action_error_mm is None
    assert episode.cpu_s > 0.0


def test_the_same_job_gives_the_same_episode(short, job):
    first, second = run_job(job), run_job(job)
    assert replace(first, cpu_s=0.0) == replace(second, cpu_s=0.0)


def test_comparing_changes_nothing_but_tells_the_error(short, job):
    plain, compared = run_job(job), run_job(replace(job, compare=True))
    assert compared.action_error_mm > 0.0
    unmeasured = {'cpu_s': 0.0, 'action_error_mm': None, 'action_bias_mm': None}
    assert replace(compared, **unmeasured) == replace(plain, **unmeasured)
    pruning = replace(job.settings.pruning, method='none')
    unpruned = replace(job, settings=replace(job.settings, pruning=pruning), compare=True)
    assert run_job(unpruned).action_error_mm == 0.0


def test_a_disturbance_ends_with_its_episode(short, job, shared_arm):
    straight = shared_arm.model.cam_quat.copy()
    run_job(replace(job, disturbance='camera_panned'))
    assert (shared_arm.model.cam_quat == straight).all()


def test_either_bowl_is_asked_for_in_one_scene(job):
    assert scene_of(job) == scene_of(replace(job, task='libero_spatial/0'))
    assert scene_of(job) != scene_of(replace(job, task='libero_spatial/2'))
