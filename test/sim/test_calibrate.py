"""Choices of the calibration, from figures."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals
from safe_vla_ros.sim import calibrate
from safe_vla_ros.sim.calibrate import deep_layers, likely_taus, nearest, smallest_tau
from safe_vla_ros.sim.evaluate import EpisodeSummary
from safe_vla_ros.sim.expert_policy import EXPERT_SPEC
from safe_vla_ros.sim.policy_file import write_policy_file
from safe_vla_ros.sim.shadow import Shadow, ShadowFigures
from safe_vla_ros.types import PruningSettings


def figures(error_mm=1.0, full=0.1, **change):
    settings = PruningSettings(method='refresh', **change)
    return ShadowFigures(settings, 100, full, 0.4, 1e-3 * error_mm, 0.0, None, ())


@pytest.mark.parametrize(
    ('layers', 'sets'),
    [
        (8, [(7,), (6, 7), (4, 5, 6, 7), (2, 3, 4, 5, 6, 7), tuple(range(8))]),
        (2, [(1,), (0, 1)]),
        (1, [(0,)]),
    ],
)
def test_sets_of_layers_begin_with_the_last_and_end_with_all(layers, sets):
    assert deep_layers(layers) == sets


def test_no_set_has_more_than_eight_layers():
    sets = deep_layers(32)
    assert sets[-1] == (0, 4, 9, 13, 18, 22, 27, 31)
    assert max(map(len, sets)) == 8


def test_the_nearest_actions_win_and_the_first_of_equals():
    trials = [figures(2.0, age_weight=0.0), figures(1.0, age_weight=0.1), figures(1.0)]
    assert nearest(trials) == trials[1].settings


def test_the_smallest_tau_within_the_budget_wins():
    trials = [
        figures(full=0.04, max_staleness=0.2),
        figures(full=0.3, max_staleness=0.05),
        figures(full=0.09, max_staleness=0.1),
    ]
    assert smallest_tau(trials, 0.1) == 0.1
    assert smallest_tau(trials, 0.01) == 0.2
    assert smallest_tau([], 0.1) == 0.0


KAPPAS = [0.5, 0.6, 0.7, 0.8, 0.9] * 4


def error_m(settings):
    """What this fake policy errs by: least with layers 4 to 7 and a weight in the middle."""
    deep = settings.saliency_layers if settings.method == 'refresh' else settings.forecast_layers
    weight = settings.age_weight if settings.method == 'refresh' else settings.fusion_weight
    return 1e-3 * (
        abs(len(deep) - 4) + abs(weight - (0.1 if settings.method == 'refresh' else 0.5))
    )


def fake_run_jobs(jobs, *, processes):
    """Answer like ``run_jobs``: kappa and residuals decide how many passes are full."""
    assert processes == 3
    for job in jobs:
        own = job.settings.pruning
        full = sum(kappa < own.refresh_threshold for kappa in KAPPAS)
        yield EpisodeSummary(
            task=job.task,
            seed=job.seed,
            init_state=None,
            method=own.method,
            success=True,
            duration_s=1.0,
            inferences=len(KAPPAS),
            key_steps={},
            full_passes=full,
            tokens_kept=1,
            tokens_total=4,
            decoder_macs=1,
            decoder_macs_full=2,
            similarities=KAPPAS if own.method == 'safe' else [],
            starved_s=0.0,
            shadows=tuple(fake_shadow(settings) for settings in job.shadows),
        )


def fake_shadow(settings):
    residuals = [0.01 * index for index in range(1, 101)]
    tau = settings.max_staleness
    passes = [
        PrunedPass(100 if tau and residual > tau else 25, 100, None, None, 1, 2)
        for residual in residuals
    ]
    shadow = Shadow(settings, PruningTotals(passes), residuals=residuals)
    shadow.differences_m = [np.full(3, error_m(settings))] * 100
    shadow.errors_m = [error_m(settings)] * 100
    shadow.errors_rad = [0.0] * 100
    return shadow


def test_what_is_calibrated_stands_in_the_policy_file(tmp_path, monkeypatch, capsys):
    write_policy_file(tmp_path)
    spec = replace(EXPERT_SPEC, num_layers=8)
    monkeypatch.setattr(calibrate, 'read_spec', lambda _: spec)
    monkeypatch.setattr(calibrate, 'run_jobs', fake_run_jobs)

    calibrate.main(['--policy', str(tmp_path), '--jobs', '3', '--full-share', '0.1'])

    pruning = yaml.safe_load((tmp_path / 'policy.yaml').read_text())['pruning']
    assert 0.5 < pruning['refresh_threshold'] <= 0.6
    assert pruning['forecast_layers'] == pruning['saliency_layers'] == [4, 5, 6, 7]
    assert (pruning['fusion_weight'], pruning['age_weight']) == (0.5, 0.1)
    assert list(pruning['max_staleness']) == [0.5, 0.25, 0.125, 0.0625]
    assert list(pruning['max_staleness'].values()) == pytest.approx([0.901] * 4, abs=2e-3)
    told = capsys.readouterr().out
    assert 'layers [4, 5, 6, 7], age weight 0.1, keep 0.25, tau 0: 0.000 mm' in told
    assert 'wrote saliency_layers [4, 5, 6, 7], age_weight 0.1' in told


def test_tau_alone_leaves_the_rest_of_the_policy_file(tmp_path, monkeypatch):
    write_policy_file(tmp_path)
    monkeypatch.setattr(calibrate, 'read_spec', lambda _: replace(EXPERT_SPEC, num_layers=8))
    monkeypatch.setattr(calibrate, 'run_jobs', fake_run_jobs)
    before = yaml.safe_load((tmp_path / 'policy.yaml').read_text())

    arguments = ['--method', 'tau', '--keep-ratios', '0.125', '0.25', '--jobs', '3']
    calibrate.main(['--policy', str(tmp_path), *arguments])

    after = yaml.safe_load((tmp_path / 'policy.yaml').read_text())
    assert list(after['pruning'].pop('max_staleness')) == [0.25, 0.125]
    assert after == before


def test_a_policy_whose_tokens_never_change_gets_no_tau():
    assert likely_taus([0.0] * 10) == []
    assert likely_taus([]) == []
