"""Jobs in warm processes: order, affinity, replacement, and what happens when one dies."""

import os

import pytest
from warm_work import Job, work

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.sim.episode_workers import default_processes, run_warm


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


def test_an_error_ends_the_run_and_names_the_job():
    with pytest.raises(SafeVlaError, match=r'number=7[\s\S]*the bowl is upside down'):
        run([Job('a', 7, 'fail')])


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
