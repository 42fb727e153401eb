"""Methods that plan on the observations of an unpruned episode."""

import numpy as np
import pytest

from safe_vla_ros.sim.shadow import ShadowPolicy, merge_shadows
from safe_vla_ros.types import ActionChunk, EpisodeMemory, PruningRecord, PruningSettings

NONE = PruningSettings(method='none')


class FakeMemory:
    """Counts the passes since it was cleared."""

    def __init__(self):
        self.passes = 0
        self.reasons = []
        self.reference_stamp_s = None

    def clear(self, reason):
        self.passes = 0
        self.reasons.append(reason)


class FakePolicy:
    """Plans 1 mm along x per action; methods err by their keep ratio in mm, refresh every time."""

    spec = 'spec'

    def new_episode(self):
        return FakeMemory()

    def infer(self, observation, memory, pruning):
        memory.passes += 1
        full = pruning.method == 'none' or memory.passes == 1
        error_m = 0.0 if full else 1e-3 * pruning.keep_ratio
        sign = -1.0 if pruning.method == 'safe' and memory.passes % 2 else 1.0
        translation = np.zeros((8, 3))
        translation[:, 0] = 1e-3
        translation[:4, 1] = sign * error_m
        record = PruningRecord(
            method=pruning.method,
            total={'front': 100},
            kept={'front': 100 if full else 25},
            key_step=full,
            reason='episode_start' if full else None,
            similarity=None,
            threshold=0.5,
            scores={},
            kept_masks={},
            stage_ms={},
            decoder_macs=100 if full else 40,
            decoder_macs_full=100,
            residual=None if full else 0.01 * memory.passes,
        )
        return ActionChunk(translation, np.zeros((8, 3)), np.zeros(8), record)


def run(passes, *methods, clear_at=()):
    policy = ShadowPolicy(FakePolicy(), methods, executed=4)
    memory = policy.new_episode()
    chunks = []
    for index in range(passes):
        if index in clear_at:
            memory.clear('observation_gap')
        chunks.append(policy.infer(None, memory, NONE))
    return policy.shadows, chunks


SAFE = PruningSettings(method='safe', keep_ratio=0.5)
REFRESH = PruningSettings(method='refresh', keep_ratio=0.5)


def test_the_unpruned_plan_is_played():
    _, chunks = run(3, REFRESH)

    assert all(chunk.record.method == 'none' for chunk in chunks)
    assert all(not chunk.translation_m[:, 1].any() for chunk in chunks)


def test_errors_are_of_the_played_actions_and_the_bias_is_what_time_does_not_average_out():
    shadows, _ = run(16, SAFE, REFRESH)

    safe, refresh = merge_shadows([shadows])

    assert refresh.error_m == safe.error_m == pytest.approx(15 / 16 * 0.5e-3)
    assert refresh.bias_m > 4 * safe.bias_m
    assert refresh.bias_m == pytest.approx(0.5e-3 * (11 + 0.8) / 12)


def test_shares_and_residuals_are_those_of_all_episodes():
    first, _ = run(4, REFRESH)
    second, _ = run(6, REFRESH)

    (figures,) = merge_shadows([first, second])

    assert (figures.passes, figures.full_pass_share) == (10, 0.2)
    assert figures.macs_share == pytest.approx((2 * 100 + 8 * 40) / 1000)
    assert len(figures.residuals) == 8
    assert figures.bias_m is not None


def test_a_short_episode_has_no_bias():
    shadows, _ = run(4, REFRESH)

    assert merge_shadows([shadows])[0].bias_m is None


def test_every_memory_is_cleared_when_the_leaders_is():
    shadows, _ = run(10, REFRESH, clear_at=(5,))

    assert merge_shadows([shadows])[0].full_pass_share == 0.2
    assert isinstance(ShadowPolicy(FakePolicy(), [], executed=4).new_episode(), EpisodeMemory)
