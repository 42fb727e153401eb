"""A decoder's output as the record that goes with an action chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.types import PruningRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.policies.decoder import DecoderOutput
    from safe_vla_ros.types import PruningSettings


def make_record(
    output: DecoderOutput,
    grids: Mapping[str, tuple[int, int]],
    settings: PruningSettings,
    stage_ms: Mapping[str, float],
    stage_macs: Mapping[str, int] | None = None,
) -> PruningRecord:
    """Say per camera what was computed, how old the rest is, and what it cost.

    Args:
        output: Result of ``run_decoder``.
        grids: Rows and columns of visual tokens by camera, in sequence order.
        settings: The settings of that pass.
        stage_ms: Milliseconds of the stages around the decoder (``prepare``, ``encode``, ...);
            ``decode``, ``pruning`` and its parts are added.
        stage_macs: Multiply-accumulates of the stages around the decoder, where counted.

    Returns:
        The record.
    """
    mask = np.zeros(output.visual.stop - output.visual.start, dtype=bool)
    mask[output.kept.cpu().numpy()] = True
    scores = None if output.scores is None else output.scores.float().cpu().numpy()
    ages = None if output.report.ages is None else output.report.ages.cpu().numpy()
    total: dict[str, int] = {}
    kept: dict[str, int] = {}
    score_grids = {}
    age_grids = {}
    kept_masks = {}
    start = 0
    for camera, (rows, columns) in grids.items():
        stop = start + rows * columns
        total[camera] = stop - start
        kept[camera] = int(mask[start:stop].sum())
        kept_masks[camera] = mask[start:stop].reshape(rows, columns)
        if scores is not None:
            score_grids[camera] = scores[start:stop].reshape(rows, columns)
        if ages is not None:
            age_grids[camera] = ages[start:stop].reshape(rows, columns)
        start = stop
    return PruningRecord(
        method=settings.method,
        total=total,
        kept=kept,
        key_step=output.key_step,
        reason=output.reason,
        similarity=output.similarity,
        threshold=settings.refresh_threshold,
        scores=score_grids,
        kept_masks=kept_masks,
        stage_ms={**stage_ms, **output.stage_ms},
        decoder_macs=output.macs,
        decoder_macs_full=output.macs_full,
        residual=output.report.residual,
        max_staleness=settings.max_staleness,
        ages=age_grids,
        context_bytes=output.context_bytes,
        stage_macs=stage_macs or {},
    )
