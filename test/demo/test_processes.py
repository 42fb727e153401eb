"""Child processes of the demo end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from safe_vla_ros.demo.processes import Child, ChildError

PATIENCE_S = 20.0


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make a module of its own from source, for a child to run."""

    def make(source):
        (tmp_path / 'child_module.py').write_text(source)
        monkeypatch.setenv('PYTHONPATH', str(tmp_path))
        return 'child_module'

    return make


def wait_for(child, text):
    deadline_s = time.monotonic() + PATIENCE_S
    while text not in child.last_lines():
        assert time.monotonic() < deadline_s, child.last_lines()
        time.sleep(0.01)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f'/proc/{pid}/stat') as file:  # noqa: PTH123
        return file.read().rsplit(')', 1)[1].split()[0] != 'Z'


def test_leaving_the_context_ends_a_child_with_sigterm(module, tmp_path):
    source = (
        'import signal, sys, time\n'
        'signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n'
        'print("up", flush=True)\n'
        'time.sleep(60)\n'
    )
    with Child('child', module(source), [], log=tmp_path / 'log') as child:
        wait_for(child, 'up')
        child.check()
    assert child.returncode == 3


def test_a_child_that_ignores_sigterm_is_killed(module, tmp_path):
    source = (
        'import signal, time\n'
        'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
        'print("up", flush=True)\n'
        'time.sleep(60)\n'
    )
    child = Child('child', module(source), [], log=tmp_path / 'log')
    child.start()
    wait_for(child, 'up')
    assert child.stop(timeout_s=0.2) == -signal.SIGKILL


def test_an_ended_child_is_reported_with_its_last_words(module, tmp_path):
    with Child('robot', module('print("no arm"); exit(4)'), [], log=tmp_path / 'log') as child:
        assert child.wait(PATIENCE_S) == 4
        with pytest.raises(ChildError, match=r'robot ended with exit status 4[\s\S]*no arm'):
            child.check()


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux ends children of a killed parent')
def test_a_child_ends_when_its_parent_is_killed(module, tmp_path):
    name = module('import time; print("up", flush=True); time.sleep(60)')
    parent = (
        'import pathlib, sys, time\n'
        'from safe_vla_ros.demo.processes import Child\n'
        f'child = Child("child", {name!r}, [], log=pathlib.Path({str(tmp_path / "log")!r}))\n'
        'child.start()\n'
        'print(child.pid, flush=True)\n'
        'time.sleep(60)\n'
    )
    process = subprocess.Popen([sys.executable, '-c', parent], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    deadline_s = time.monotonic() + PATIENCE_S
    while not (tmp_path / 'log').exists() or 'up' not in (tmp_path / 'log').read_text():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    process.kill()
    process.wait()
    while is_running(pid):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
