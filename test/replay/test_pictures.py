from types import SimpleNamespace

import numpy as np
import pytest

from safe_vla_ros.replay.pictures import LONGEST_STRIP, Filmstrip, Painter
from safe_vla_ros.runtime.overlay import TokenArea
from safe_vla_ros.types import MessageHeader, Observation, PruningRecord


def make_step(index, *, key=True, time_s=None, size=(24, 32)):
    mask = np.ones((2, 2), bool)
    record = PruningRecord(
        'safe', {'c': 4}, {'c': 4}, key, 'attention_shift', 0.3, 0.5, {}, {'c': mask}, {}, 1, 1
    )
    observation = Observation(
        {'c': np.zeros((*size, 3), np.uint8)}, 'push', None, {'c': MessageHeader.at(1.0)}
    )
    report = SimpleNamespace(record=record, observation=observation, episode=1, step=index)
    return SimpleNamespace(
        method='safe', end_s=float(index if time_s is None else time_s), report=report
    )


def painter(**changes):
    values = {'max_width': 320, 'max_rate_hz': 5.0, 'alpha': 0.5, 'area': TokenArea()}
    return Painter(**{**values, **changes})


@pytest.mark.parametrize('count', [1, 24, 25, 100, 1000])
def test_a_filmstrip_is_evenly_thinned_and_bounded(tmp_path, count):
    strip = Filmstrip(tmp_path / 'strip', 'safe')
    overlays = {'c': np.zeros((8, 8, 3), np.uint8)}
    for index in range(count):
        strip.add(make_step(index), overlays, start_s=0.0)
    steps = [frame['step'] for frame in strip.to_json()]
    assert steps[0] == 0
    assert min(count, LONGEST_STRIP // 2) <= len(steps) <= LONGEST_STRIP
    assert len(set(np.diff(steps))) <= 1
    files = {path.name for path in (tmp_path / 'strip').iterdir()}
    assert files == {frame['file'] for frame in strip.to_json()}


def test_a_filmstrip_holds_key_steps_only(tmp_path):
    strip = Filmstrip(tmp_path / 'strip', 'safe')
    strip.add(make_step(1, key=False), {'c': np.zeros((8, 8, 3), np.uint8)}, start_s=0.0)
    assert strip.to_json() == []


def test_overlays_are_drawn_at_the_rate_but_key_steps_always():
    brush = painter()
    drawn = [
        bool(brush.draw(make_step(index, key=key, time_s=time_s)))
        for index, (time_s, key) in enumerate(
            [(10.0, False), (10.1, False), (10.15, True), (10.2, False), (10.4, False)]
        )
    ]
    assert drawn == [True, False, True, False, True]
    assert brush.drawn == 3


def test_wide_images_are_made_smaller():
    overlay = painter().draw(make_step(0, size=(480, 640)))['c']
    assert overlay.shape[1] == 320


def test_an_inference_without_a_record_is_not_drawn():
    step = make_step(0)
    step.report.record = None
    assert painter().draw(step) == {}
