"""The record that goes with an action chunk."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from safe_vla_ros.policies.decoder import DecoderOutput
from safe_vla_ros.policies.pruning_record import make_record
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import SequenceLayout, StepReport
from safe_vla_ros.types import PruningSettings


def make_output(kept, scores):
    stopwatch = StageTimer(torch.device('cpu'))
    with stopwatch.stage('decode'), stopwatch.stage('taps'):
        pass
    return DecoderOutput(
        hidden=torch.zeros(1, 4 + len(kept), 8),
        positions=torch.arange(4 + len(kept)),
        layout=SequenceLayout(14, slice(1, 11), (6, 4), 13, slice(12, 13)),
        kept=torch.tensor(kept),
        report=StepReport(scores=scores, similarity=0.7, key_step=False),
        layer_keys=(14, 14),
        macs=50,
        macs_full=100,
        cache=None,
        stopwatch=stopwatch,
    )


def test_scores_and_masks_are_split_by_camera_in_row_major_grids():
    output = make_output([0, 5, 9], torch.arange(10.0))

    record = make_record(
        output, {'front': (2, 3), 'wrist': (2, 2)}, PruningSettings(), {'encode': 1.5}
    )

    assert (record.total, record.kept) == ({'front': 6, 'wrist': 4}, {'front': 2, 'wrist': 1})
    assert record.pruning_ratio == pytest.approx(0.7)
    assert np.array_equal(record.kept_masks['front'], [[True, False, False], [False, False, True]])
    assert np.array_equal(record.kept_masks['wrist'], [[False, False], [False, True]])
    assert np.array_equal(record.scores['wrist'], np.array([[6, 7], [8, 9]], dtype=np.float32))
    assert record.scores['front'].dtype == np.float32
    assert (record.method, record.similarity, record.threshold) == ('safe', 0.7, 0.9)
    assert (record.decoder_macs, record.decoder_macs_full) == (50, 100)
    assert {'encode', 'decode', 'pruning', 'taps'} <= set(record.stage_ms)


def test_a_method_without_scores_gives_no_grids():
    output = make_output(list(range(10)), None)

    record = make_record(output, {'front': (2, 5)}, PruningSettings(method='none'), {})

    assert record.scores == {}
    assert record.kept_masks['front'].all()
    assert record.pruning_ratio == 0


def test_ages_are_split_by_camera_and_mean_that_the_method_renews():
    output = make_output([0, 5, 9], torch.arange(10.0))
    ages = torch.tensor([0.0, 1, 2, 3, 4, 0, 6, 7, 8, 0])
    report = StepReport(residual=0.05, ages=ages, scores=torch.arange(10.0))
    output = replace(output, report=report, context_bytes=640)
    settings = PruningSettings(method='refresh', max_staleness=0.1)

    record = make_record(output, {'front': (2, 3), 'wrist': (2, 2)}, settings, {})

    assert record.renews
    assert np.array_equal(record.ages['front'], [[0, 1, 2], [3, 4, 0]])
    assert np.array_equal(record.ages['wrist'], [[6, 7], [8, 0]])
    assert (record.residual, record.max_staleness, record.context_bytes) == (0.05, 0.1, 640)
    assert record.pruning_ratio == pytest.approx(0.7)
