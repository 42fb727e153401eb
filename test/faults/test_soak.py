"""A soak notices what grows, what breaks and what does not answer."""

from __future__ import annotations

import json

import pytest
import soak
from soak_report import FEWEST_SAMPLES, Sample, checks, growth

STEADY = [Sample(float(i), 500.0 + i % 3, 14, 60, 0.1, True) for i in range(2 * FEWEST_SAMPLES)]


def changed(last, **values):
    return [*STEADY[:-last], *(Sample(**{**vars(s), **values}) for s in STEADY[-last:])]


def test_a_steady_node_passes_every_check():
    assert set(checks(STEADY, [], '').values()) == {True}


@pytest.mark.parametrize(
    ('name', 'samples', 'violations', 'unanswered'),
    [
        ('memory', changed(20, resident_mib=510.0), [], ''),
        ('threads', changed(1, threads=15), [], ''),
        ('files', changed(1, files=61), [], ''),
        ('commands', STEADY, ['linear speed 9 is above the limit 0.4'], ''),
        ('answers', STEADY, [], 'pause: answer of pause did not come'),
    ],
)
def test_each_fault_fails_its_own_check_alone(name, samples, violations, unanswered):
    found = checks(samples, violations, unanswered)
    assert [check for check, passed in found.items() if passed is False] == [name]


def test_memory_is_not_judged_by_few_samples():
    assert growth(STEADY[: FEWEST_SAMPLES - 1]) is None
    assert checks(STEADY[:3], [], '')['memory'] is None


def test_a_few_seconds_over_dds_leave_a_report_and_a_picture(tmp_path, monkeypatch):
    kept = {event: 1 for event in soak.EVENTS if event.__name__ in {'pause', 'lose_input'}}
    monkeypatch.setattr(soak, 'EVENTS', kept)
    assert soak.main(['--minutes', '0.07', '--seed', '3', '--out', str(tmp_path)]) == 0
    report = json.loads((tmp_path / 'soak.json').read_text(encoding='utf-8'))
    assert report['violations'] == []
    assert report['unanswered'] == ''
    assert report['largest']['linear_speed'] > 0.0
    assert report['events']['begin'] == 1
    assert (tmp_path / 'soak.png').stat().st_size > 1000
