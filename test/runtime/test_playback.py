"""Playback keeps displacement, skips what was played, and reads the gripper of the right action."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_fakes import PERIOD_S, chunk, steady_chunk

from safe_vla_ros.runtime.action_plan import adaptive_weights
from safe_vla_ros.runtime.playback import ChunkPlayer
from safe_vla_ros.types import ActionChunk

displacements = st.lists(
    st.lists(st.floats(-0.02, 0.02), min_size=6, max_size=6), min_size=2, max_size=10
)


def make_chunk(rows: list[list[float]]) -> ActionChunk:
    moves = np.array(rows)
    return chunk(moves[:, :3], moves[:, 3:])


def total(planned: ActionChunk) -> np.ndarray:
    return np.concatenate([planned.translation_m.sum(0), planned.rotation_rad.sum(0)])


def playing(planned: ActionChunk, now_s: float = 100.0) -> ChunkPlayer:
    player = ChunkPlayer()
    player.advance(now_s)
    player.splice(planned, stamp_s=now_s, period_s=PERIOD_S)
    return player


@settings(max_examples=50, deadline=None)
@given(displacements, st.floats(1.0, 200.0))
def test_displacement_is_kept_at_any_control_rate(rows: list[list[float]], rate_hz: float) -> None:
    planned = make_chunk(rows)
    player, now_s, moved, interval_s = playing(planned), 100.0, np.zeros(6), 1 / rate_hz
    last = np.concatenate([planned.translation_m[-1], planned.rotation_rad[-1]]) / PERIOD_S
    while not player.ended:
        moved += player.next_twist(interval_s) * interval_s
        now_s += interval_s
        player.advance(now_s)
    assert moved - last * player.held_s == pytest.approx(total(planned), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(displacements, st.lists(st.floats(0.3, 1.9), min_size=30, max_size=30))
def test_displacement_is_kept_when_ticks_come_early_and_late(
    rows: list[list[float]], jitter: list[float]
) -> None:
    planned = make_chunk(rows)
    player, now_s, moved, step = playing(planned), 100.0, np.zeros(6), 0
    last = np.concatenate([planned.translation_m[-1], planned.rotation_rad[-1]]) / PERIOD_S
    while not player.ended or player.held_s < 0.4:
        really_s = 0.02 * jitter[step % len(jitter)]
        moved += player.next_twist(0.02) * really_s
        now_s += really_s
        step += 1
        player.advance(now_s)
    assert moved - last * player.held_s == pytest.approx(total(planned), abs=2e-4)


@settings(max_examples=50, deadline=None)
@given(displacements, st.lists(st.floats(0.3, 1.9), min_size=30, max_size=30))
def test_a_jittered_tick_never_leaves_more_owed_than_its_own_error(
    rows: list[list[float]], jitter: list[float]
) -> None:
    planned = make_chunk(rows)
    player, now_s, moved = playing(planned), 100.0, np.zeros(6)
    fastest = np.abs(np.array(rows)).max() / PERIOD_S
    for factor in jitter:
        moved += player.next_twist(0.02) * 0.02 * factor
        now_s += 0.02 * factor
        player.advance(now_s)
        if player.ended:
            break
        begun = min(player.played_since(100.0) / PERIOD_S, len(planned))
        whole, part = int(begun), begun - int(begun)
        moves = np.hstack([planned.translation_m, planned.rotation_rad])
        wanted = moves[:whole].sum(0) + part * moves[min(whole, len(moves) - 1)]
        assert np.abs(moved - wanted).max() <= 4 * fastest * 0.02 + 1e-9


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.001, 0.06), st.booleans()), min_size=4, max_size=20),
    st.floats(0.0, 1.0),
)
def test_the_skip_is_exactly_what_was_played_since_the_observation(
    steps: list[tuple[float, bool]], when: float
) -> None:
    player, now_s, played = ChunkPlayer(), 100.0, []
    player.advance(now_s)
    for length_s, on in steps:
        if on and not player.has_plan:
            player.splice(steady_chunk(steps=100), stamp_s=now_s, period_s=PERIOD_S)
        if not on:
            player.clear()
        player.next_twist(length_s)
        played.append((now_s, length_s if on else 0.0))
        now_s += length_s
        player.advance(now_s)
    stamp_s = 100.0 + when * (now_s - 100.0)
    expected_s = sum(
        min(max(start_s + played_s - stamp_s, 0.0), played_s) for start_s, played_s in played
    )
    seam = player.splice(steady_chunk(steps=200), stamp_s=stamp_s, period_s=PERIOD_S)
    assert seam is not None
    assert seam.skipped_s == pytest.approx(expected_s, abs=1e-7)
    assert seam.skipped_actions == pytest.approx(expected_s / PERIOD_S, abs=1e-5)


def test_a_splice_between_ticks_skips_the_part_of_the_tick_that_was_played() -> None:
    player = playing(steady_chunk(steps=20))
    player.next_twist(0.02)
    player.advance(100.02)
    player.next_twist(0.02)
    player.advance(100.027)
    seam = player.splice(steady_chunk(steps=20), stamp_s=100.005, period_s=PERIOD_S)
    assert seam is not None
    assert seam.skipped_s == pytest.approx(0.022)


def test_a_late_tick_counts_only_while_the_robot_executes_its_command() -> None:
    player = playing(steady_chunk(steps=20))
    player.next_twist(0.02, longest_s=0.1)
    player.advance(100.3)
    assert player.chunk_time_s == pytest.approx(0.1)
    player.advance(100.5)
    assert player.chunk_time_s == pytest.approx(0.1)


def test_at_a_slow_rate_the_last_twist_is_held_no_longer_than_allowed() -> None:
    player = playing(steady_chunk(0.1, steps=8))
    assert player.next_twist(1.0, hold_s=0.1)[0] == pytest.approx(0.1 * (0.4 + 0.1) / 1.0)


def test_a_chunk_whose_actions_were_all_played_is_not_taken() -> None:
    player = playing(steady_chunk(0.1, steps=20))
    player.next_twist(0.5)
    player.advance(100.5)
    assert player.splice(steady_chunk(9.0), stamp_s=100.1, period_s=PERIOD_S) is None
    assert player.next_twist(0.02)[0] == pytest.approx(0.1)


def test_inference_is_due_without_a_chunk_after_its_steps_and_at_its_end() -> None:
    player = ChunkPlayer()
    assert player.is_due(0.2)
    player = playing(steady_chunk(steps=3))
    for i in range(1, 10):
        assert not player.is_due(0.1 + 1e-3) or i > 5
        player.next_twist(0.02)
        player.advance(100.0 + i * 0.02)
    assert player.is_due(9.0)


def test_the_skipped_part_counts_for_the_next_inference() -> None:
    player = playing(steady_chunk(steps=8))
    player.next_twist(0.15)
    player.advance(100.15)
    player.splice(steady_chunk(steps=8), stamp_s=100.05, period_s=PERIOD_S)
    assert player.chunk_time_s == pytest.approx(0.1)
    assert player.is_due(0.1)
    assert not player.is_due(0.15)


def test_the_gripper_follows_the_action_being_played() -> None:
    player = playing(chunk(np.zeros((4, 3)), gripper=[0.0, 0.3, 0.6, 1.0]))
    seen = []
    for i in range(12):
        seen.append(player.opening())
        player.next_twist(0.02)
        player.advance(100.0 + (i + 1) * 0.02)
    assert seen == [0.0, 0.0, 0.0, 0.3, 0.3, 0.6, 0.6, 0.6, 1.0, 1.0, 1.0, 1.0]


def test_an_ensemble_averages_the_gripper_too() -> None:
    player = playing(steady_chunk(steps=8, gripper=1.0))
    player.next_twist(0.1)
    player.advance(100.1)
    player.splice(
        steady_chunk(steps=8, gripper=0.0), stamp_s=100.1, period_s=PERIOD_S, blending='ensemble'
    )
    assert player.opening() == pytest.approx(1 / (1 + np.exp(-0.01)))


@pytest.mark.parametrize(('horizon', 'counted'), [(1, 1), (2, 2), (7, 3)])
def test_a_cogact_ensemble_averages_only_its_newest_chunks(horizon: int, counted: int) -> None:
    player = ChunkPlayer()
    player.advance(100.0)
    speeds, openings = (0.1, 0.2, 0.4), (0.0, 0.5, 1.0)
    for speed, opening in zip(speeds, openings, strict=True):
        player.splice(
            steady_chunk(speed, steps=8, gripper=opening),
            stamp_s=100.0,
            period_s=PERIOD_S,
            blending='cogact_ensemble',
            ensemble_horizon=horizon,
        )
    actions = np.zeros((counted, 7))
    actions[:, 0] = np.array(speeds[-counted:]) * PERIOD_S
    actions[:, 6] = openings[-counted:]
    weights = adaptive_weights(actions)
    assert player.next_twist(0.02)[0] == pytest.approx(weights @ actions[:, 0] / PERIOD_S)
    assert player.opening() == pytest.approx(weights @ actions[:, 6])


def test_without_a_plan_there_is_nothing_to_read() -> None:
    player = ChunkPlayer()
    assert player.opening() is None
    assert player.rest() == []
    assert not player.next_twist(0.02).any()


@pytest.mark.parametrize('blending', ['none', 'crossfade', 'ensemble', 'cogact_ensemble'])
def test_the_same_plan_again_makes_no_seam(blending: str) -> None:
    speeds = np.linspace(0.1, 0.5, 16)
    moves = np.stack([speeds * PERIOD_S, 0 * speeds, 0 * speeds], axis=1)
    player = playing(chunk(moves))
    twists = []
    for i in range(20):
        if i == 7:
            seam = player.splice(
                chunk(moves[2:]),
                stamp_s=100.1,
                period_s=PERIOD_S,
                blending=blending,
                blend_steps=2,
            )
            assert seam is not None
            assert seam.jump_m_s == pytest.approx(0.0, abs=1e-9)
        twists.append(player.next_twist(0.02)[0])
        player.advance(100.0 + (i + 1) * 0.02)
    undisturbed = playing(chunk(moves))
    expected = []
    for i in range(20):
        expected.append(undisturbed.next_twist(0.02)[0])
        undisturbed.advance(100.0 + (i + 1) * 0.02)
    assert twists == pytest.approx(expected, abs=1e-9)


def test_a_crossfade_spreads_a_jump_over_its_actions() -> None:
    player = playing(steady_chunk(0.1, steps=20))
    player.next_twist(0.02)
    player.advance(100.02)
    seam = player.splice(
        steady_chunk(0.3, steps=20),
        stamp_s=100.0,
        period_s=PERIOD_S,
        blending='crossfade',
        blend_steps=2,
    )
    assert seam is not None
    assert seam.jump_m_s == pytest.approx(0.2)
    speeds = []
    for i in range(8):
        speeds.append(player.next_twist(0.02)[0])
        player.advance(100.04 + i * 0.02)
    assert speeds[:5] == pytest.approx([0.12, 0.16, 0.2, 0.24, 0.28])
    assert speeds[5:] == pytest.approx([0.3] * 3)


def test_the_first_chunk_has_no_seam() -> None:
    player = ChunkPlayer()
    seam = player.splice(steady_chunk(), stamp_s=1.0, period_s=PERIOD_S)
    assert seam is not None
    assert seam.jump_m_s is None
    assert seam.skipped_s == 0.0


def test_the_rest_of_the_plan_adds_up_to_its_displacement() -> None:
    player = playing(steady_chunk(0.1, steps=8))
    player.next_twist(0.07)
    player.advance(100.07)
    rest = player.rest()
    assert sum(length_s for length_s, _ in rest) == pytest.approx(0.33)
    assert sum(move[0] for _, move in rest) == pytest.approx(0.033)


def test_time_that_goes_back_a_little_changes_nothing() -> None:
    player = playing(steady_chunk(steps=8))
    player.next_twist(0.02)
    player.advance(100.02)
    player.advance(100.01)
    player.advance(100.03)
    assert player.chunk_time_s == pytest.approx(0.03)
