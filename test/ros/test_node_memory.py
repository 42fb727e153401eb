"""What the node holds after cycles of its life: as much as after the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

HERE = Path(__file__).parent
POLICY_MIB = 10.0
"""Less than what the bundled policy takes."""


def cycle(kind, count):
    """Run cycles in a process of their own; return what was held after each."""
    paths = [str(HERE), *filter(None, [os.environ.get('PYTHONPATH')])]
    done = subprocess.run(
        [sys.executable, HERE / 'node_cycles.py', kind, str(count)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    held = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(held) == count
    assert {cycle['threads'] for cycle in held} == {held[0]['threads']}
    assert {cycle['files'] for cycle in held} == {held[0]['files']}
    return [cycle['resident_mib'] for cycle in held]


def test_twelve_cycles_leave_no_policy_behind():
    resident = cycle('whole', 12)
    assert max(resident) - resident[0] < 2 * POLICY_MIB, resident


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', ['whole', 'activation'])
def test_sixty_cycles_hold_what_the_first_did_to_two_percent(kind):
    resident = cycle(kind, 60)
    assert max(resident) < 1.02 * resident[0], resident


def test_a_policy_goes_when_its_last_inference_ends_and_the_next_one_waits_for_that(bench, robot):
    robot.start_moving()
    gate, entered, gone = bench.policy.gate, bench.policy.entered, weakref.ref(bench.policy)
    gate.clear()
    entered.clear()
    assert entered.wait(5.0)
    bench.policies.policy = None
    assert robot.transition('deactivate')
    assert robot.transition('cleanup')
    assert gone() is not None
    answers = []
    thread = threading.Thread(target=lambda: answers.append(robot.transition('configure')))
    thread.start()
    try:
        robot.wait_log('waiting for the last inference of the policy before')
        assert bench.policies.policy is None
    finally:
        gate.set()
        thread.join()
    assert answers == [True]
    assert bench.policy is not None
    assert gone() is None
