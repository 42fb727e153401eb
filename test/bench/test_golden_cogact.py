"""CogACT's golden set, and a checker that notices what it must notice."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from openvla_checkpoints import GOLDEN, edit_json

from safe_vla_ros.bench.golden import main
from safe_vla_ros.bench.golden_checks import Ledger
from safe_vla_ros.bench.golden_cogact import _check_ensembles, check_set
from safe_vla_ros.policies.ddim import make_schedule

if TYPE_CHECKING:
    from pathlib import Path

SET = GOLDEN / 'cogact' / 'set1'
OVERALL = {'ddim_t'}
"""Arrays that are not by observation."""


def checked(path: Path) -> dict[str, Any]:
    meta = json.loads((path / 'meta.json').read_text())
    return {check.name: check for check in check_set(path, meta)}


def failures(path: Path) -> set[str]:
    return {name for name, check in checked(path).items() if not check.passed}


@pytest.fixture
def short_set(tmp_path: Path) -> Path:
    """The first observation alone, to be tampered with."""
    path = tmp_path / 'short'
    path.mkdir()
    for part in ('checkpoint', 'tokenizer'):
        shutil.copytree(SET / part, path / part)
    shutil.copy(SET / 'meta.json', path)
    for name in ('inputs', 'full', 'pruned'):
        with np.load(SET / f'{name}.npz') as content:
            arrays = dict(content)
        rewrite(path, name, {k: v if k in OVERALL else v[:1] for k, v in arrays.items()})
    return path


def rewrite(path: Path, name: str, arrays: dict[str, Any]) -> None:
    np.savez(path / f'{name}.npz', **arrays)


def arrays_of(path: Path, name: str) -> dict[str, Any]:
    with np.load(path / f'{name}.npz') as content:
        return dict(content)


def test_every_array_of_the_set_is_compared_and_within_its_limit() -> None:
    checks = checked(SET)
    assert not [check for check in checks.values() if not check.passed]
    for name in ('full', 'pruned'):
        assert {f'{name}.{key}' for key in arrays_of(SET, name)} <= checks.keys()
    for name in ('kept', 'cognition', 'norm_actions_raw', 'actions'):
        assert {f'pruned.{name}_0', f'pruned.{name}_1'} <= checks.keys()


@pytest.mark.parametrize(
    ('place', 'value', 'quantity'),
    [
        ('cogact_config._LLAMA_EPSILON', 1e-6, 'full.norm_actions_raw'),
        ('vision._ACTIVATION', 'gelu_pytorch_tanh', 'full.vision_features'),
        ('diffusion_transformer._NORM_EPSILON', 1e-3, 'full.ddim_eps_uncond'),
        ('ddim._COSINE_OFFSET', 0.009, 'full.ddim_x'),
        ('cogact_model._GRIPPER_THRESHOLD', -2.0, 'full.norm_actions'),
    ],
)
def test_a_slip_in_the_arithmetic_is_noticed(
    short_set: Path, monkeypatch: pytest.MonkeyPatch, place: str, value: object, quantity: str
) -> None:
    monkeypatch.setattr(f'safe_vla_ros.policies.{place}', value)
    make_schedule.cache_clear()
    try:
        assert quantity in failures(short_set)
    finally:
        make_schedule.cache_clear()


@pytest.mark.parametrize(
    ('changes', 'quantity'),
    [
        ({'K': 3}, 'pruned.cognition_0'),
        ({'cfg_scale': 1.4}, 'full.ddim_eps_cfg'),
        ({'ddim_steps': 20}, 'full.ddim_t'),
        ({'unnorm_key': 'fractal20220817_data'}, 'full.actions'),
    ],
)
def test_a_wrong_setting_is_noticed(
    short_set: Path, changes: dict[str, Any], quantity: str
) -> None:
    edit_json(short_set / 'meta.json', **changes)
    assert quantity in failures(short_set)


def test_an_ensemble_that_trusts_contradictions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('safe_vla_ros.runtime.action_plan.AGREEMENT', 0.0)
    ledger = Ledger()
    _check_ensembles(arrays_of(SET, 'full'), ledger)
    assert [name for name, check in ledger.checks.items() if not check.passed]


def test_other_kept_tokens_are_noticed(short_set: Path) -> None:
    arrays = arrays_of(short_set, 'pruned')
    total = len(arrays_of(short_set, 'full')['projected_patches'][0])
    kept = arrays['kept_0'][0]
    other = np.setdiff1d(np.arange(total), kept)[: len(kept)].astype(kept.dtype)
    arrays['kept_0'] = other[None]
    rewrite(short_set, 'pruned', arrays)
    assert 'pruned.cognition_0' in failures(short_set)


def test_an_array_that_nobody_compares_is_a_failure(short_set: Path) -> None:
    rewrite(short_set, 'full', {**arrays_of(short_set, 'full'), 'surprise': np.zeros((1, 3))})
    assert 'full.compared' in failures(short_set)


def test_a_changed_checkpoint_is_noticed(short_set: Path) -> None:
    edit_json(short_set / 'checkpoint' / 'config.json', use_ema=True)
    assert failures(short_set) == {'checkpoint.files'}


def test_the_command_checks_the_set(short_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(short_set)]) == 0
    assert ' 0 failed' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('name', 'sentence'),
    [('full.npz', 'full.npz'), ('tokenizer', 'tokenizer'), ('checkpoint', 'checkpoint')],
)
def test_a_part_that_is_missing_is_named(
    short_set: Path, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    target = short_set / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert main([str(short_set)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_setting_that_is_missing_is_named(
    short_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_json(short_set / 'meta.json', dit=None)
    assert main([str(short_set)]) == 2
    assert "no key 'dit'" in capsys.readouterr().err
