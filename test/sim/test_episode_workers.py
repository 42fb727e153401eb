"""Jobs in warm processes: order, affinity, replacement, and what happens when one dies."""

import os

import pytest
from warm_work import Job, work

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.sim.episode_workers import MOST_FAILURES, default_processes, run_warm


def place(job):
    return job.place


def run(jobs, **options):
    return list(run_warm(jobs, work, place=place, **{'processes': 1, **options}))


def test_every_job_is_answered_once_and_a_worker_stays_where_it_is():
    jobs = [Job('ab'[number % 2], number) for number in range(6)]
    answers = run(jobs)
    assert [job.place for job, _ in answers] == ['a', 'a', 'a', 'b', 'b', 'b']
    assert [number for _, (_, number) in answers] == [0, 2, 4, 1, 3, 5]
    assert len({pid for _, (pid, _) in answers}) == 1
    assert os.getpid() not in {pid for _, (pid, _) in answers}


def test_a_worker_does_not_look_further_ahead_than_it_may():
    jobs = [Job('a', 0), Job('b', 1), Job('b', 2), Job('a', 3)]
    assert [job.number for job, _ in run(jobs, window=2)] == [0, 1, 2, 3]


def test_a_worker_that_holds_too_much_is_replaced():
    answers = run([Job('a', 0), Job('a', 1)], largest_gib=0.001)
    assert len({pid for _, (pid, _) in answers}) == 2


def test_a_job_that_fails_is_named_at_the_end_and_the_others_run():
    answered = []
    running = run_warm([Job('a', 7, 'fail'), Job('a', 8)], work, processes=1, place=place)
    with pytest.raises(SafeVlaError, match=r'1 jobs failed[\s\S]*number=7[\s\S]*upside down'):
        answered.extend(job.number for job, _ in running)
    assert answered == [8]


def test_when_everything_fails_the_run_ends_early():
    jobs = [*(Job('a', number, 'fail') for number in range(MOST_FAILURES)), Job('a', 99)]
    with pytest.raises(SafeVlaError, match=f'{MOST_FAILURES} jobs failed'):
        run(jobs)


def test_a_job_whose_process_dies_is_tried_again(tmp_path):
    mark = str(tmp_path / 'mark')
    answers = run([Job('a', 0, 'die once', mark), Job('a', 1)])
    assert sorted(number for _, (_, number) in answers) == [0, 1]


def test_a_job_that_always_kills_its_process_ends_the_run():
    with pytest.raises(SafeVlaError, match='ended 2 times'):
        run([Job('a', 0, 'die')])


def test_leaving_the_loop_ends_the_workers():
    running = run_warm([Job('a', 0), Job('a', 1)], work, processes=1, place=place)
    _, (pid, _) = next(running)
    running.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_there_is_a_process_for_every_core_that_has_memory():
    assert 1 <= default_processes() <= len(os.sched_getaffinity(0))
