"""One row per inference, as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from safe_vla_ros.replay.method_run import Step
    from safe_vla_ros.replay.metrics import MetricSums


def make_row(step: Step, recorded: MetricSums, *, bag: str, start_s: float) -> dict[str, Any]:
    """Return the row of one inference.

    Args:
        step: The inference.
        recorded: Agreement with recorded commands since the inference before it.
        bag: Key of the bag.
        start_s: The clock's time of the first message, seconds.

    Returns:
        Values that JSON holds. ``actions`` is [T, 7]: displacement in metres, rotation vector in
        radians, opening; what does not apply is None.
    """
    report, outcome = step.report, step.report.outcome
    job, record, observation = outcome.job, outcome.record, outcome.observation
    row: dict[str, Any] = {
        'bag': bag,
        'method': step.method,
        'episode': job.episode,
        'step': job.step,
        'time_s': round(step.begin_s - start_s, 6),
        'stamp_s': job.stamp_s,
        'accepted': report.accepted,
        'why_not': report.why_not or None,
        'error': outcome.error or None,
        'latency_ms': 1000 * report.latency_s,
        'observation_age_s': report.observation_age_s,
        'skipped_actions': report.seam.skipped_actions,
        'seam_jump_m_s': report.seam.jump_m_s,
        'seam_jump_rad_s': report.seam.jump_rad_s,
        'instruction': observation.instruction if observation else None,
    }
    if record is not None:
        row |= {
            'key_step': record.key_step,
            'reason': record.reason,
            'similarity': record.similarity,
            'threshold': record.threshold,
            'tokens_total': dict(record.total),
            'residual': record.residual,
            'max_staleness': record.max_staleness,
            'tokens_computed': dict(record.kept),
            'pruning_ratio': record.pruning_ratio,
            'decoder_macs': record.decoder_macs,
            'decoder_macs_full': record.decoder_macs_full,
            'stage_ms': dict(record.stage_ms),
        }
    if step.difference is not None:
        row['difference'] = asdict(step.difference)
    if recorded.counts['recorded/ticks']:
        row['recorded_linear_m_s'] = recorded.get('recorded/linear_m_s').mean
        row['recorded_direction'] = recorded.get('recorded/direction').mean
    chunk = outcome.chunk
    if chunk is not None:
        actions = np.column_stack([chunk.translation_m, chunk.rotation_rad, chunk.gripper])
        row['actions'] = actions.tolist()
    return row


class RowFile:
    """Writes rows to a file of JSON lines.

    Attributes:
        count: Rows written.
    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._file: IO[str] = path.open('w', encoding='utf-8')

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._file.write(json.dumps(clean(row), separators=(',', ':')) + '\n')
        self.count += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def clean(value: Any) -> Any:
    """Return a value with None in place of what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: clean(element) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(element) for element in value]
    return value
