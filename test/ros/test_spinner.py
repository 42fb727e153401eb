"""The control thread goes before others as far as the system allows it."""

from __future__ import annotations

import os
import threading

import pytest

from safe_vla_ros.ros import spinner


def in_a_thread(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def hurried():
    spinner.hurry()
    thread = threading.get_native_id()
    return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)


@pytest.fixture
def may_not(monkeypatch):
    def forbid(name):
        def refuse(*_):
            raise PermissionError(name)

        monkeypatch.setattr(os, name, refuse)

    return forbid


def test_thread_is_scheduled_in_real_time_and_what_it_starts_is_not(monkeypatch):
    asked = []
    monkeypatch.setattr(os, 'sched_setscheduler', lambda *given: asked.append(given))
    in_a_thread(hurried)
    [(_, policy, parameter)] = asked
    assert policy == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    assert parameter.sched_priority == spinner.REAL_TIME_PRIORITY


def test_thread_is_nicer_to_itself_where_real_time_is_forbidden(may_not, monkeypatch):
    may_not('sched_setscheduler')
    asked = []
    monkeypatch.setattr(os, 'setpriority', lambda *given: asked.append(given))
    in_a_thread(hurried)
    [(_, _, niceness)] = asked
    assert niceness == spinner.NICENESS


def test_thread_runs_as_before_where_nothing_is_allowed(may_not):
    may_not('sched_setscheduler')
    may_not('setpriority')
    assert in_a_thread(hurried) == (os.SCHED_OTHER, os.getpriority(os.PRIO_PROCESS, 0))


def test_other_threads_stay_as_they_are():
    in_a_thread(hurried)
    assert os.sched_getscheduler(threading.get_native_id()) == os.SCHED_OTHER
