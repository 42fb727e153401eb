"""Episodes run through the node's playback with modelled latency."""

import numpy as np
import pytest

from safe_vla_ros.runtime import StateName
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.expert_policy import EXPERT_SPEC, ExpertPolicy
from safe_vla_ros.sim.rollout import Latency, run_episode
from safe_vla_ros.types import ActionChunk, PruningRecord

SETTINGS = resolve_episode(EXPERT_SPEC, {'pruning.method': 'none'})


def run(arm, latency=None, *, noise=0.0, on_frame=None):
    expert = ExpertPolicy(noise=noise, seed=1)

    def see(arm, frame, proprio):
        expert.see(frame.stamp_s, frame.state)
        if on_frame is not None:
            on_frame(frame, proprio)

    return run_episode(
        arm,
        expert,
        settings=SETTINGS,
        latency=latency or Latency(),
        seed=1,
        on_frame=see,
        blind=True,
    )


def test_the_expert_solves_the_task_through_the_playback(arm):
    result = run(arm)
    assert result.success
    assert 4.0 < result.duration_s < 9.0
    assert all(report.accepted for report in result.reports)
    assert StateName.STARVED not in result.halts


def test_the_expert_solves_the_task_in_spite_of_noise(other_arm):
    assert run(other_arm, noise=0.1).success


def test_the_same_seed_gives_the_same_episode(arm):
    first = run(arm, noise=0.1)
    arm.reset(0, init_state=0)
    second = run(arm, noise=0.1)
    assert first.duration_s == second.duration_s
    assert [r.latency_s for r in first.reports] == [r.latency_s for r in second.reports]


def test_the_modelled_latency_is_what_the_runtime_sees(arm):
    result = run(arm, Latency(camera_s=0.03, inference_s=0.06, inference_spread=0.0))
    for report in result.reports:
        assert report.latency_s == pytest.approx(0.06, abs=0.0101)
        assert report.observation_age_s >= 0.09


def test_a_latency_longer_than_the_chunk_starves_the_arm(arm):
    result = run(arm, Latency(inference_s=0.6, inference_spread=0.0))
    assert result.halts.get(StateName.STARVED, 0.0) > 0.1


def test_frames_come_with_what_the_policy_and_the_expert_would_see(arm):
    seen = []
    start = arm.ee_position
    run(arm, on_frame=lambda frame, proprio: seen.append((frame, proprio)))
    stamps = np.array([frame.stamp_s for frame, _ in seen])
    np.testing.assert_allclose(np.diff(stamps), 0.05, atol=1e-9)
    first, proprio = seen[0]
    np.testing.assert_allclose(first.state.hand, start, atol=1e-9)
    assert proprio.shape == (8,)
    np.testing.assert_allclose(proprio[:3], start, atol=0.01)
    # The hand points down: turned by pi about x.
    np.testing.assert_allclose(proprio[3:6], [np.pi, 0.0, 0.0], atol=0.1)
    np.testing.assert_allclose(proprio[6:], [0.04, -0.04], atol=0.005)


class Frozen:
    """A policy that never moves."""

    spec = ExpertPolicy.spec
    new_episode = ExpertPolicy.new_episode
    translation, rotation = np.zeros((8, 3)), np.zeros((8, 3))

    def infer(self, observation, memory, pruning):
        record = PruningRecord('none', {}, {}, False, None, None, 0.0, {}, {}, {}, 0, 0)
        return ActionChunk(self.translation, self.rotation, np.ones(8), record)


def play(arm, policy, **changes):
    settings = resolve_episode(EXPERT_SPEC, {'pruning.method': 'none', **changes})
    return run_episode(arm, policy, settings=settings, latency=Latency(), seed=7, blind=True)


def test_an_episode_ends_at_the_benchmarks_limit(arm):
    result = play(arm, Frozen())
    assert not result.success
    assert result.duration_s == pytest.approx(arm.task.max_duration_s, abs=0.011)


class Pusher(Frozen):
    """A policy that always drives to the side, as fast as it may."""

    translation = np.tile([0.0, 0.0125, 0.0], (8, 1))


def test_the_arm_stays_in_the_box_of_its_settings(arm):
    box = {'workspace_min': [-0.5, -0.3, 0.9], 'workspace_max': [0.5, 0.2, 1.4]}
    play(arm, Pusher(), **box)
    assert 0.15 < arm.ee_position[1] < 0.2 + SETTINGS.control.workspace.margin_m


class Turner(Frozen):
    """A policy that turns the hand about the vertical."""

    rotation = np.tile([0.0, 0.0, 0.01], (8, 1))


def test_the_arm_turns_as_it_is_told(arm):
    before = arm.ee_quaternion_xyzw
    play(arm, Turner())
    # cos of half the angle between the two: it has turned by more than half a radian
    assert abs(before @ arm.ee_quaternion_xyzw) < np.cos(0.25)
