"""What came out of episodes, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.runtime.diagnostics import NONE, read_pass
from safe_vla_ros.runtime.pruning_totals import PruningTotals
from safe_vla_ros.sim.lifting import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True)
class EpisodeResult:
    """One episode.

    Attributes:
        method: Pruner that ran.
        task: Name of the task.
        seed: Seed of the scene.
        outcome: ``success``, ``timeout`` or ``aborted``.
        elapsed_s: Simulated time that it took.
        duration_s: Time that it took on the wall clock.
        sentence: What was asked for.
        first_lifted: Of LIBERO-Spatial's two bowls, ``asked`` or ``other``; ``none`` if none was.
        inferences: Values of every ``~/inference``, see ``runtime.diagnostics``.
        robot: Values of the robot's diagnostics, once a second.
    """

    method: str
    task: str
    seed: int
    outcome: str
    elapsed_s: float
    duration_s: float
    sentence: str
    first_lifted: str
    inferences: tuple[Mapping[str, str], ...]
    robot: tuple[Mapping[str, str], ...] = ()

    @property
    def success(self) -> bool:
        """Whether the task was done in time."""
        return self.outcome == 'success'

    @property
    def wrong_bowl(self) -> bool:
        """Whether the bowl that was not asked for was lifted first."""
        return self.first_lifted == OTHER

    def numbers(self) -> dict[str, Any]:
        """Return what goes into the summary about this episode."""
        return {
            'method': self.method,
            'task': self.task,
            'seed': self.seed,
            'asked': self.sentence,
            'outcome': self.outcome,
            'success': self.success,
            'first_lifted': self.first_lifted,
            'elapsed_s': self.elapsed_s,
            'duration_s': round(self.duration_s, 3),
            **pruning_numbers([self]),
        }


def pruning_numbers(episodes: Iterable[EpisodeResult]) -> dict[str, Any]:
    """Sum up pruning, cost and latency over episodes; None where nothing was measured."""
    steps = [values for episode in episodes for values in episode.inferences if 'method' in values]
    passes = [read_pass(step) for step in steps]
    totals = PruningTotals(passes)
    pruned = [one.pruning_ratio for one in passes if one.reason is None]
    timed = [step for step in steps if step['warm_up'] != 'true']
    return {
        'inferences': totals.passes,
        'tokens_kept_share': _rounded(totals.kept_share),
        'pruning_ratio': _rounded(None if totals.kept_share is None else 1 - totals.kept_share),
        'pruning_ratio_of_pruned_steps': _mean(pruned),
        'key_steps': totals.key_steps,
        'key_step_share': _rounded(totals.key_step_share),
        'key_step_reasons': dict(sorted(totals.reasons.items())),
        'similarity': spread(steps, 'similarity'),
        'latency_ms': spread(timed, 'latency_ms'),
        'stage_ms_mean': {
            name.removeprefix('stage_ms/'): _mean(_floats(timed, name))
            for name in sorted(
                {key for step in timed for key in step if key.startswith('stage_ms/')}
            )
        },
        'decoder_gmacs_per_step': _mean([one.decoder_macs / 1e9 for one in passes]),
        'decoder_gmacs_per_full_step': _mean([one.decoder_macs_full / 1e9 for one in passes]),
        'observation_to_command_ms': spread(timed, 'observation_age_s', 1e3),
        'skipped_actions_mean': _mean(_floats(timed, 'skipped_actions')),
        'seam_jump_m_s': spread(timed, 'seam_jump_m_s'),
    }


def rates(episodes: Sequence[EpisodeResult], second_s: float = 1.0) -> dict[str, Any]:
    """Return what was achieved while episodes ran, per second of the robot's clock.

    Args:
        episodes: Episodes; the medians over their seconds count for the robot.
        second_s: Wall-clock time that a second of the robot's clock took.
    """
    duration_s = sum(episode.duration_s for episode in episodes) / second_s
    # The first second of an episode also holds the change of scenes before it.
    robot = [values for episode in episodes for values in episode.robot[1:]]
    return {
        'inference_hz': round(sum(len(e.inferences) for e in episodes) / duration_s, 2)
        if duration_s
        else None,
        'camera_hz': spread(robot, 'camera_hz', second_s).get('p50'),
        'physics_hz': spread(robot, 'physics_hz', second_s).get('p50'),
    }


def task_numbers(episodes: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Sum up the episodes of one task and method."""
    done = [episode for episode in episodes if episode.success]
    pruning = pruning_numbers(episodes)
    return {
        'episodes': len(episodes),
        'successes': len(done),
        'success_rate': _rounded(len(done) / len(episodes) if episodes else None),
        'wrong_bowls': sum(episode.wrong_bowl for episode in episodes),
        'elapsed_s_of_successes': round(float(np.mean([e.elapsed_s for e in done])), 3)
        if done
        else None,
        'tokens_kept_share': pruning['tokens_kept_share'],
        'key_steps': pruning['key_steps'],
    }


def spread(steps: Sequence[Mapping[str, str]], key: str, factor: float = 1.0) -> dict[str, Any]:
    """Return median, 95th percentile and extremes of a value over steps that have it."""
    found = np.array(_floats(steps, key)) * factor
    if not len(found):
        return {'count': 0}
    low, median, high, top = np.percentile(found, [0, 50, 95, 100]).tolist()
    return {
        'count': len(found),
        'min': round(low, 4),
        'p50': round(median, 4),
        'p95': round(high, 4),
        'max': round(top, 4),
    }


def group_by(
    episodes: Iterable[EpisodeResult], key: Callable[[EpisodeResult], str]
) -> dict[str, list[EpisodeResult]]:
    """Group episodes, in the order in which they came."""
    groups: dict[str, list[EpisodeResult]] = {}
    for episode in episodes:
        groups.setdefault(key(episode), []).append(episode)
    return groups


def _floats(steps: Iterable[Mapping[str, str]], key: str) -> list[float]:
    return [float(step[key]) for step in steps if step.get(key, NONE) != NONE]


def _mean(values: Sequence[float]) -> float | None:
    return _rounded(float(np.mean(values)) if values else None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
