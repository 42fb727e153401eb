"""Episodes run through the node's playback with modelled latency."""

import numpy as np
import pytest

from safe_vla_ros.runtime import StateName
from safe_vla_ros.sim.arm import SimulatedArm
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.expert import EXPERT_SPEC, ExpertPolicy
from safe_vla_ros.sim.rollout import EPISODE_S, Latency, run_episode
from safe_vla_ros.types import ActionChunk, PruningRecord

SETTINGS = resolve_episode(EXPERT_SPEC, {'pruning.method': 'none'})


@pytest.fixture(scope='module')
def arm():
    arm = SimulatedArm('reach')
    yield arm
    arm.close()


def run(arm, seed, latency=None, *, on_frame=None):
    arm.reset(seed)
    expert = ExpertPolicy(arm, noise=0.0, seed=seed)

    def see(arm, frame, proprio):
        expert.see(frame.stamp_s, frame.state)
        if on_frame is not None:
            on_frame(frame, proprio)

    return run_episode(
        arm,
        expert,
        settings=SETTINGS,
        latency=latency or Latency(),
        seed=seed,
        on_frame=see,
        blind=True,
    )


def test_the_expert_solves_the_task_through_the_playback(arm):
    result = run(arm, 1)
    assert result.success
    assert 0.3 < result.duration_s < 3.0
    assert all(report.accepted for report in result.reports)
    assert StateName.STARVED not in result.halts


def test_the_same_seed_gives_the_same_episode(arm):
    first, second = run(arm, 2), run(arm, 2)
    assert first.duration_s == second.duration_s
    assert [r.latency_s for r in first.reports] == [r.latency_s for r in second.reports]


def test_the_modelled_latency_is_what_the_runtime_sees(arm):
    result = run(arm, 3, Latency(camera_s=0.03, inference_s=0.06, inference_spread=0.0))
    for report in result.reports:
        assert report.latency_s == pytest.approx(0.06, abs=0.0126)
        assert report.observation_age_s >= 0.09


def test_a_latency_longer_than_the_chunk_starves_the_arm(arm):
    result = run(arm, 3, Latency(inference_s=0.6, inference_spread=0.0))
    assert result.halts.get(StateName.STARVED, 0.0) > 0.1


def test_frames_come_with_what_the_policy_would_see(arm):
    seen = []
    run(arm, 4, on_frame=lambda frame, proprio: seen.append((frame.stamp_s, proprio)))
    stamps = np.array([stamp for stamp, _ in seen])
    np.testing.assert_allclose(np.diff(stamps), 0.05, atol=1e-9)
    assert all(proprio.shape == (5,) for _, proprio in seen)


class Frozen:
    """A policy that never moves."""

    spec = ExpertPolicy.spec
    new_episode = ExpertPolicy.new_episode

    def infer(self, observation, memory, pruning):
        record = PruningRecord('none', {}, {}, False, None, None, 0.0, {}, {}, {}, 0, 0)
        return ActionChunk(np.zeros((8, 3)), np.zeros((8, 3)), np.ones(8), record)


def test_an_episode_ends_after_its_time(arm):
    arm.reset(7)
    result = run_episode(
        arm,
        Frozen(),
        settings=SETTINGS,
        latency=Latency(),
        seed=7,
        blind=True,
    )
    assert not result.success
    assert result.duration_s == pytest.approx(EPISODE_S, abs=0.02)


class Pusher(Frozen):
    """A policy that always drives to the side, as fast as it may."""

    def infer(self, observation, memory, pruning):
        chunk = super().infer(observation, memory, pruning)
        translation = np.tile([0.02, 0.0, 0.0], (8, 1))
        return ActionChunk(translation, chunk.rotation_rad, chunk.gripper, chunk.record)


def test_the_arm_stays_in_the_box_of_its_settings(arm):
    arm.reset(7)
    box = {'workspace_min': [-0.55, 0.30, 0.0], 'workspace_max': [0.15, 1.05, 0.60]}
    settings = resolve_episode(EXPERT_SPEC, {'pruning.method': 'none', **box})
    run_episode(arm, Pusher(), settings=settings, latency=Latency(), seed=7, blind=True)
    assert 0.1 < arm.ee_position[0] < 0.15 + settings.control.workspace.margin_m
