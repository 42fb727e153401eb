"""The picture of what methods keep shows every method on the same frames."""

import cv2
import numpy as np
import pytest
from mini_policies import BUNDLED_CAMERAS, write_untrained_policy

from safe_vla_ros.bench import kept
from safe_vla_ros.runtime.overlay import overlay_size
from safe_vla_ros.types import MessageHeader, Observation

PROPRIO = np.array([-0.06, 0.23, 1.03, 3.14, 0.0, -0.1, 0.02, -0.02])


@pytest.fixture
def policy(tmp_path):
    return str(write_untrained_policy(tmp_path / 'untrained'))


@pytest.fixture
def observations(monkeypatch):
    random = np.random.default_rng(0)
    seen = [
        Observation(
            {name: random.integers(0, 256, (256, 256, 3), np.uint8) for name in BUNDLED_CAMERAS},
            'pick up the black bowl',
            PROPRIO,
            {name: MessageHeader.at(100.0 + 0.2 * number) for name in BUNDLED_CAMERAS},
        )
        for number in range(4)
    ]
    monkeypatch.setattr(kept, 'record_observations', lambda *_args, **_options: seen)
    return seen


def test_a_row_is_a_method_and_a_column_a_moment(policy, observations, tmp_path):
    out = tmp_path / 'kept.png'
    options = ['--policy', policy, '--out', str(out), '--scale', '1', '--moments', '1', '3']
    assert kept.main([*options, '--methods', 'none', 'safe', 'refresh']) == 0
    picture = cv2.imread(str(out))
    height, width = overlay_size(256, 256)
    assert picture.shape == (3 * (height + kept.GAP_PX), 2 * (2 * width + kept.GAP_PX), 3)
    rows = np.split(picture, 3)
    assert (rows[0] != rows[1]).any()
    assert (rows[1] != rows[2]).any()


def test_a_moment_after_the_end_is_refused(policy, observations, capsys):
    assert kept.main(['--policy', policy, '--moments', '9']) == 2
    assert 'the episode has 4 inferences' in capsys.readouterr().err
