"""Calibrate the refresh threshold gamma of a policy and write it into its policy.yaml.

gamma is a quantile of kappa, which is measured on training scenes without any refresh. Bisection
chooses the quantile so that about the given share of the passes are key steps.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from safe_vla_ros.policies import read_spec
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary, run_jobs
from safe_vla_ros.sim.policy_file import write_policy_file
from safe_vla_ros.sim.tasks import TASKS

CALIBRATION_SEED = 5_000
_NEVER = -1.0


def calibrate(options: argparse.Namespace) -> float:
    """Return gamma; prints every trial."""
    spec = read_spec(str(options.policy))
    own = {
        'policy': str(options.policy),
        'pruning.method': 'safe',
        'pruning.keep_ratio': options.keep_ratio,
    }

    def run(threshold: float) -> list[EpisodeSummary]:
        settings = resolve_episode(spec, {**own, 'pruning.refresh_threshold': threshold})
        jobs = [
            EpisodeJob(str(options.policy), task, options.seed + index, settings)
            for index in range(options.episodes)
            for task in TASKS
        ]
        return list(run_jobs(jobs, processes=options.jobs))

    kappas = np.array([kappa for episode in run(_NEVER) for kappa in episode.similarities])
    percentiles = np.percentile(kappas, [5, 25, 50, 75, 95])
    print('kappa without refresh, 5 to 95 %:', ' '.join(f'{value:.3f}' for value in percentiles))
    low, high = 0.0, 1.0
    quantile = options.share
    for _ in range(options.trials):
        threshold = float(np.quantile(kappas, quantile))
        episodes = run(threshold)
        passes = sum(episode.inferences for episode in episodes)
        share = sum(episode.full_passes for episode in episodes) / passes
        solved = sum(episode.success for episode in episodes) / len(episodes)
        print(
            f'gamma {threshold:.4f} (quantile {quantile:.2f}): {100 * share:.1f} % key steps, '
            f'{100 * solved:.0f} % solved'
        )
        if share > options.share:
            high = quantile
        else:
            low = quantile
        quantile = (low + high) / 2
    return float(np.quantile(kappas, low)) if low > 0.0 else float(kappas.min())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.calibrate',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--policy', type=Path, required=True, help='policy folder; its policy.yaml is changed'
    )
    parser.add_argument('--share', type=float, default=0.2, help='share of key steps to aim for')
    parser.add_argument('--keep-ratio', type=float, default=0.25)
    parser.add_argument('--episodes', type=int, default=6, help='episodes per task and trial')
    parser.add_argument('--trials', type=int, default=4, help='steps of the bisection')
    parser.add_argument(
        '--seed', type=int, default=CALIBRATION_SEED, help='seed of the first scene'
    )
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='number of processes')
    options = parser.parse_args(arguments)
    threshold = calibrate(options)
    write_policy_file(options.policy, refresh_threshold=threshold)
    print(f'wrote refresh_threshold {threshold:.4f} into {options.policy / "policy.yaml"}')


if __name__ == '__main__':
    main()
