"""Figures of closed-loop evaluation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_vla_ros.bench.success import describe
from safe_vla_ros.sim.evaluate import EpisodeSummary, wilson_interval


def episode(task, seed, success, *, kept=50, full=1, method='safe'):
    return EpisodeSummary(
        task=task,
        seed=seed,
        init_state=None,
        method=method,
        success=success,
        duration_s=2.0,
        inferences=10,
        key_steps={'episode_start': 1},
        full_passes=full,
        tokens_kept=kept,
        tokens_total=100,
        decoder_macs=5,
        decoder_macs_full=10,
        similarities=[],
        starved_s=0.0,
    )


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share(counts):
    successes, trials = counts
    low, high = wilson_interval(successes, trials)
    assert 0.0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1.0
    assert low < high


def test_a_known_interval():
    low, high = wilson_interval(40, 50)
    assert (low, high) == (pytest.approx(0.670, abs=1e-3), pytest.approx(0.888, abs=1e-3))


def test_methods_are_compared_scene_by_scene():
    unpruned = [episode('a', 1, True), episode('a', 2, False), episode('a', 3, True)]
    pruned = [episode('a', 1, False), episode('a', 2, True), episode('a', 3, True)]
    figures = describe(pruned, unpruned)
    assert figures['lost_against_none'] == 1
    assert figures['won_against_none'] == 1
    assert figures['tokens_kept_share'] == 0.5
    assert figures['full_pass_share'] == 0.1
    assert figures['decoder_macs_share'] == 0.5
    assert figures['key_steps'] == {'episode_start': 3}
