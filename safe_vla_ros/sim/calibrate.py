"""Calibrate the pruning settings of a policy on training scenes and write them into policy.yaml.

safe: gamma is a quantile of kappa, which is measured without any refresh; bisection chooses the
quantile so that about --share of the passes are key steps. Forecast layers and lambda are those
whose actions are nearest to the unpruned ones.

refresh: saliency layers and age weight are those whose actions are nearest to the unpruned ones
without tau; tau is the smallest that leaves at most --full-share of the passes full. The fewer
tokens are renewed, the more stays stale in any scene, so every keep ratio has a tau of its own.

Actions are compared on the observations of unpruned episodes, all candidates on the same ones.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.policies import read_spec
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary, run_jobs
from safe_vla_ros.sim.policy_file import store_pruning
from safe_vla_ros.sim.shadow import ShadowFigures, merge_shadows
from safe_vla_ros.sim.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from safe_vla_ros.types import PruningSettings

CALIBRATION_SEED = 5_000
KEEP_RATIOS = (0.5, 0.25, 0.125, 0.0625)
AGE_WEIGHTS = (0.0, 0.03, 0.1, 0.3)
FUSION_WEIGHTS = (0.25, 0.5, 0.75)
RESIDUAL_QUANTILES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
_NEVER = -1.0
_MOST_LAYERS = 8


class Calibration:
    """Runs episodes of a policy on training scenes; every choice is printed with its figures."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self._policy = str(options.policy)
        self._spec = read_spec(self._policy)

    @property
    def num_layers(self) -> int:
        """L of the policy's decoder."""
        return self._spec.num_layers

    def settings(self, method: str, **changes: Any) -> PruningSettings:
        """Return the policy's settings of a method with changes of single fields."""
        resolved = resolve_episode(self._spec, self._values(method))
        return replace(resolved.pruning, **changes)

    def closed_loop(self, method: str, values: dict[str, Any]) -> list[EpisodeSummary]:
        """Run every training scene with these parameters."""
        return self._run({**self._values(method), **values}, ())

    def compare(self, candidates: Sequence[PruningSettings]) -> list[ShadowFigures]:
        """Let candidates plan on the observations of unpruned episodes."""
        episodes = self._run(self._values('none'), tuple(candidates))
        figures = merge_shadows([episode.shadows for episode in episodes])
        for one in figures:
            print(f'  {_describe(one)}')
        return figures

    def _values(self, method: str) -> dict[str, Any]:
        return {
            'policy': self._policy,
            'pruning.method': method,
            'pruning.keep_ratio': self.options.keep_ratio,
        }

    def _run(
        self, values: dict[str, Any], shadows: tuple[PruningSettings, ...]
    ) -> list[EpisodeSummary]:
        options = self.options
        settings = resolve_episode(self._spec, values)
        jobs = [
            EpisodeJob(self._policy, task, options.seed + index, settings, shadows=shadows)
            for index in range(options.episodes)
            for task in options.tasks
        ]
        return list(run_jobs(jobs, processes=options.jobs))


def calibrate_safe(calibration: Calibration) -> dict[str, Any]:
    """Return gamma, forecast layers and lambda by name."""
    gamma = _calibrate_gamma(calibration)
    print('safe: forecast layers and lambda')
    base = calibration.settings('safe', refresh_threshold=gamma)
    best = nearest(
        calibration.compare(
            [
                replace(base, forecast_layers=layers, fusion_weight=weight)
                for layers in deep_layers(calibration.num_layers)
                for weight in FUSION_WEIGHTS
            ]
        )
    )
    return {
        'refresh_threshold': round(gamma, 4),
        'forecast_layers': list(best.forecast_layers),
        'fusion_weight': best.fusion_weight,
    }


def calibrate_refresh(calibration: Calibration) -> dict[str, Any]:
    """Return saliency layers, age weight and tau by name."""
    print('refresh: saliency layers and age weight, without tau')
    base = calibration.settings('refresh', max_staleness=0.0)
    best = nearest(
        calibration.compare(
            [
                replace(base, saliency_layers=layers, age_weight=weight)
                for layers in deep_layers(calibration.num_layers)
                for weight in AGE_WEIGHTS
            ]
        )
    )
    return {
        'saliency_layers': list(best.saliency_layers),
        'age_weight': best.age_weight,
        **_calibrate_tau(calibration, best),
    }


def calibrate_tau(calibration: Calibration) -> dict[str, Any]:
    """Return tau by name, with the saliency layers and the age weight of the policy."""
    return _calibrate_tau(calibration, calibration.settings('refresh', max_staleness=0.0))


def _calibrate_tau(calibration: Calibration, best: PruningSettings) -> dict[str, Any]:
    ratios = sorted(set(calibration.options.keep_ratios), reverse=True)
    print('refresh: residuals without tau')
    free = calibration.compare([replace(best, keep_ratio=ratio) for ratio in ratios])
    print('refresh: tau')
    trials = calibration.compare(
        [
            replace(one.settings, max_staleness=tau)
            for one in free
            for tau in likely_taus(one.residuals)
        ]
    )
    taus = {
        ratio: smallest_tau(
            [one for one in trials if one.settings.keep_ratio == ratio],
            calibration.options.full_share,
        )
        for ratio in ratios
    }
    return {'max_staleness': taus}


def likely_taus(residuals: Sequence[float]) -> list[float]:
    """Return limits to try: quantiles of the residuals, without zero, in order."""
    if not residuals:
        return []
    quantiles = np.quantile(residuals, RESIDUAL_QUANTILES)
    return [tau for tau in sorted({round(float(tau), 4) for tau in quantiles}) if tau > 0.0]


def deep_layers(num_layers: int) -> list[tuple[int, ...]]:
    """Return the sets of layers to try: the last, and the upper 1/4, 1/2, 3/4 and all of them.

    A set has at most eight layers, spread evenly.
    """
    sets: list[tuple[int, ...]] = [(num_layers - 1,)]
    for quarters in (1, 2, 3, 4):
        first = num_layers - max(1, num_layers * quarters // 4)
        places = np.linspace(first, num_layers - 1, min(_MOST_LAYERS, num_layers - first))
        sets.append(tuple(int(place) for place in places.round()))
    return list(dict.fromkeys(sets))


def nearest(figures: Iterable[ShadowFigures]) -> PruningSettings:
    """Return the settings whose actions are nearest to the unpruned ones; the first of equals."""
    return min(figures, key=lambda one: one.error_m).settings


def smallest_tau(trials: Sequence[ShadowFigures], share: float) -> float:
    """Return the smallest tau with at most this share of full passes.

    Args:
        trials: One for each tau.
        share: 0..1.

    Returns:
        tau; the largest where every one has more full passes, 0 (off) where there is no trial.
    """
    in_order = sorted(trials, key=lambda one: one.settings.max_staleness)
    for one in in_order:
        if one.full_pass_share <= share:
            return one.settings.max_staleness
    return in_order[-1].settings.max_staleness if in_order else 0.0


def _calibrate_gamma(calibration: Calibration) -> float:
    options = calibration.options

    def run(threshold: float) -> list[EpisodeSummary]:
        return calibration.closed_loop('safe', {'pruning.refresh_threshold': threshold})

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


def _describe(one: ShadowFigures) -> str:
    settings = one.settings
    if settings.method == 'safe':
        what = f'layers {list(settings.forecast_layers)}, lambda {settings.fusion_weight:g}'
    else:
        what = (
            f'layers {list(settings.saliency_layers)}, age weight {settings.age_weight:g}, '
            f'keep {settings.keep_ratio:g}, tau {settings.max_staleness:g}'
        )
    bias = '' if one.bias_m is None else f', bias {1e3 * one.bias_m:.3f} mm'
    return (
        f'{what}: {1e3 * one.error_m:.3f} mm and {one.error_rad:.5f} rad per action{bias}, '
        f'{one.full_pass_share:.1%} full passes, {one.macs_share:.1%} of the multiply-accumulates'
    )


METHODS = {'safe': calibrate_safe, 'refresh': calibrate_refresh, 'tau': calibrate_tau}
"""What can be calibrated: ``tau`` is the last step of ``refresh`` alone."""


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
    parser.add_argument(
        '--method',
        nargs='+',
        choices=tuple(METHODS),
        default=('safe', 'refresh'),
        help='what to calibrate; tau: the last step of refresh alone',
    )
    parser.add_argument(
        '--share', type=float, default=0.2, help='share of key steps of safe to aim for'
    )
    parser.add_argument(
        '--full-share', type=float, default=0.1, help='largest share of full passes of refresh'
    )
    parser.add_argument(
        '--keep-ratio', type=float, default=0.25, help='with which everything but tau is chosen'
    )
    parser.add_argument(
        '--keep-ratios',
        type=float,
        nargs='+',
        default=KEEP_RATIOS,
        metavar='RATIO',
        help='each gets a tau of its own; between them it is interpolated',
    )
    parser.add_argument('--tasks', nargs='+', default=TASKS, metavar='TASK')
    parser.add_argument('--episodes', type=int, default=6, help='episodes per task and trial')
    parser.add_argument('--trials', type=int, default=4, help='steps of the bisection for gamma')
    parser.add_argument(
        '--seed', type=int, default=CALIBRATION_SEED, help='seed of the first scene'
    )
    parser.add_argument('--jobs', type=int, default=os.cpu_count() or 1, help='number of processes')
    options = parser.parse_args(arguments)
    calibration = Calibration(options)
    for method in options.method:
        found = METHODS[method](calibration)
        store_pruning(options.policy, found)
        text = ', '.join(f'{name} {value}' for name, value in found.items())
        print(f'wrote {text} into {options.policy / "policy.yaml"}')


if __name__ == '__main__':
    main()
