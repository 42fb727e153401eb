"""A few cases of every target, and the runner's own eyes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from targets import TARGETS
from worker import run_case

RUNNER = Path(__file__).parent
OURS = {'accepted', 'refused'}


@pytest.mark.parametrize('name', TARGETS)
def test_whatever_is_read_is_accepted_or_refused_with_a_sentence(name, tmp_path, capfd) -> None:
    target = TARGETS[name]
    case = target.prepare(tmp_path)
    capfd.readouterr()
    count = 30 if target.quiet else 5
    outcomes = Counter(run_case(case, name, 7, index) for index in range(count))
    assert outcomes.keys() <= OURS
    assert outcomes['refused'], outcomes
    assert not target.quiet or capfd.readouterr() == ('', '')


@pytest.mark.timeout(110)
def test_the_runner_sees_every_failure_and_goes_on(tmp_path) -> None:
    out = tmp_path / 'fuzz.json'
    options = [
        '--targets',
        'faults',
        '--seed',
        '1',
        '--first',
        '2',
        '--cases',
        '12',
        '--minutes',
        '5',
        '--case-seconds',
        '4',
    ]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(RUNNER), *options, '--out', str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    result = json.loads(out.read_text())['targets']['faults']
    assert result['cases'] == 12
    told = ' '.join(failure['failure'] for failure in result['failures'])
    for words in ('KeyError', 'took more than 4 s', 'SIGABRT', 'MiB', 'written to stderr'):
        assert words in told
    assert result['accepted'] > 0
    assert result['refused'] > 0
