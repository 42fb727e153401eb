"""What is told about the running policy, as keys and values in fixed formats.

The node publishes these on ``/diagnostics`` and ``~/inference``, the replay writes them; a key has
the same name, format and meaning everywhere.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from safe_vla_ros.errors import shortened
from safe_vla_ros.runtime.health import ERROR, OK, WARN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.runtime.inference import InferenceReport
    from safe_vla_ros.runtime.statistics import RuntimeStatistics
    from safe_vla_ros.runtime.tick_monitor import TickTiming
    from safe_vla_ros.types import PruningRecord

NONE = 'none'
"""Value of a key that has no number now."""


class PruningCounts:
    """Counts what pruning did, in all and in the episode that is running."""

    def __init__(self) -> None:
        self.episode = 0
        self._passes: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._episode_reasons: Counter[str] = Counter()
        self._episode_passes = 0

    def add(self, record: PruningRecord, episode: int) -> None:
        """Count one inference.

        Args:
            record: What pruning did.
            episode: Number of its episode; a new one starts the episode's counts again.
        """
        if episode != self.episode:
            self.episode, self._episode_passes = episode, 0
            self._episode_reasons.clear()
        self._episode_passes += 1
        self._passes['all'] += 1
        self._passes['tokens_total'] += sum(record.total.values())
        self._passes['tokens_kept'] += sum(record.kept.values())
        if record.key_step:
            self._passes['key'] += 1
            self._reasons[str(record.reason)] += 1
            self._episode_reasons[str(record.reason)] += 1

    def values(self) -> dict[str, str]:
        """Return passes, key steps with their reasons, and the share of tokens kept over all."""
        passes, tokens = self._passes['all'], self._passes['tokens_total']
        return {
            'passes': count(passes),
            'key_steps': count(self._passes['key']),
            'key_step_share': ratio(self._passes['key'] / passes if passes else None),
            'key_step_reasons': _tally(self._reasons),
            'kept_share_all_passes': ratio(
                self._passes['tokens_kept'] / tokens if tokens else None
            ),
            'episode_passes': count(self._episode_passes),
            'episode_key_steps': count(self._episode_reasons.total()),
            'episode_key_step_reasons': _tally(self._episode_reasons),
        }


class TaskStatus(NamedTuple):
    """A diagnostic_msgs/DiagnosticStatus without the node's name and hardware.

    Attributes:
        task: What it is about, ``inference`` for example.
        level: 0 OK, 1 WARN, 2 ERROR.
        message: Short text.
        values: Its keys and values.
    """

    task: str
    level: int
    message: str
    values: Mapping[str, str]


def inference_statuses(report: InferenceReport) -> list[TaskStatus]:
    """Return what ``~/inference`` says: what became of the inference, and what pruning did."""
    level = OK if report.accepted else ERROR if report.error else WARN
    text = 'played' if report.accepted else report.why_not
    statuses = [TaskStatus('inference', level, text, report_values(report))]
    if report.record is not None:
        text = 'key step' if report.record.key_step else 'pruned'
        statuses.append(TaskStatus('pruning', OK, text, record_values(report.record)))
    return statuses


def reset_status(report: InferenceReport) -> TaskStatus | None:
    """Return what ``~/subtask_reset`` says; None when the reference was not renewed."""
    record = report.record
    if record is None or not record.key_step or record.reason is None:
        return None
    values = subtask_reset_values(record, episode=report.episode, step=report.step)
    return TaskStatus('subtask_reset', OK, record.reason, values)


def report_values(report: InferenceReport) -> dict[str, str]:
    """Say what became of one inference."""
    values = {
        'episode': count(report.episode),
        'step': count(report.step),
        'accepted': flag(report.accepted),
        'why_not': report.why_not or NONE,
        'error': report.error or NONE,
        'refused': flag(report.refused),
        'warm_up': flag(report.warm_up),
        'failures_consecutive': count(report.failures),
        'latency_ms': milliseconds(report.latency_s),
        'observation_stamp_s': stamp(report.observation_stamp_s),
        'observation_age_s': seconds(report.observation_age_s),
        'skipped_actions': number(report.skipped_actions),
        'seam_jump_m_s': number(report.seam_jump_m_s),
        'seam_jump_rad_s': number(report.seam_jump_rad_s),
    }
    if report.observation is not None:
        values['instruction'] = shortened(report.observation.instruction)
        for camera, stamp_s in report.observation.image_stamps_s.items():
            values[f'image_stamp_s/{camera}'] = stamp(stamp_s)
    return values


def record_values(record: PruningRecord) -> dict[str, str]:
    """Say what pruning did at one inference."""
    values = {
        'method': record.method,
        'tokens_total': count(sum(record.total.values())),
        'tokens_kept': count(sum(record.kept.values())),
        'pruning_ratio': ratio(record.pruning_ratio),
        'key_step': flag(record.key_step),
        'reason': record.reason or NONE,
        'similarity': ratio(record.similarity),
        'threshold': ratio(record.threshold),
        'decoder_gmacs': number(record.decoder_macs / 1e9),
        'decoder_gmacs_full': number(record.decoder_macs_full / 1e9),
    }
    for camera, total in record.total.items():
        values[f'tokens_total/{camera}'] = count(total)
        values[f'tokens_kept/{camera}'] = count(record.kept[camera])
    for stage, stage_ms in record.stage_ms.items():
        values[f'stage_ms/{stage}'] = f'{stage_ms:.2f}'
    return values


def subtask_reset_values(record: PruningRecord, *, episode: int, step: int) -> dict[str, str]:
    """Say why and when a key step renewed the saliency reference."""
    return {
        'similarity': ratio(record.similarity),
        'threshold': ratio(record.threshold),
        'episode': count(episode),
        'step': count(step),
    }


def input_values(
    statistics: RuntimeStatistics, incompatible_qos: Mapping[str, int]
) -> dict[str, str]:
    """Say how old the inputs are and what was lost.

    Args:
        statistics: The runtime's.
        incompatible_qos: Publishers with incompatible QoS by topic.
    """
    values = {f'age_s/{name}': seconds(age_s) for name, age_s in statistics.ages_s.items()}
    values['camera_skew_s'] = seconds(statistics.camera_skew_s)
    for camera, received in statistics.images_received.items():
        values[f'images_received/{camera}'] = count(received)
        values[f'images_dropped/{camera}'] = count(statistics.images_dropped[camera])
    values['incompatible_qos'] = _tally(incompatible_qos)
    values['instruction'] = shortened(statistics.instruction) or NONE
    return values


def inference_values(statistics: RuntimeStatistics, rate_hz: float | None) -> dict[str, str]:
    """Say how inference goes, over the last hundred and in all.

    Args:
        statistics: The runtime's.
        rate_hz: Inferences per second lately, or None.
    """
    latencies = statistics.latencies
    return {
        'inference_hz': number(rate_hz),
        'latency_ms_p50': milliseconds(latencies.p50_s),
        'latency_ms_p95': milliseconds(latencies.p95_s),
        'latency_ms_max': milliseconds(latencies.max_s),
        'warm_up_latency_ms': milliseconds(statistics.warm_up_latency_s),
        'chunk_duration_s': seconds(statistics.chunk_duration_s),
        'inferences': count(statistics.inferences),
        'chunks_accepted': count(statistics.accepted),
        'chunks_discarded': count(statistics.discarded),
        'chunks_refused': count(statistics.refused),
        'failures': count(statistics.failures),
        'failures_consecutive': count(statistics.consecutive_failures),
        'skipped_actions_mean': number(statistics.skipped_actions),
        'seam_jump_m_s_max': number(statistics.seam_jump_m_s),
        'seam_jump_rad_s_max': number(statistics.seam_jump_rad_s),
    }


def control_values(statistics: RuntimeStatistics, timing: TickTiming) -> dict[str, str]:
    """Say how punctual the control ticks are and what became of the plan."""
    return {
        'control_hz': number(timing.rate_hz),
        'ticks': count(timing.ticks),
        'missed_ticks': count(timing.missed),
        'tick_deviation_ms_p50': milliseconds(timing.deviation_p50_s),
        'tick_deviation_ms_p99': milliseconds(timing.deviation_p99_s),
        'tick_deviation_ms_max': milliseconds(timing.deviation_max_s),
        'tick_duration_ms_max': milliseconds(timing.duration_max_s),
        'played_ticks': count(statistics.played_ticks),
        'starved_ticks': count(statistics.starved_ticks),
        'clipped_ticks/speed': count(statistics.speed_clipped_ticks),
        'clipped_ticks/acceleration': count(statistics.acceleration_clipped_ticks),
        'clipped_ticks/workspace': count(statistics.workspace_clipped_ticks),
        'clipped_ticks/lead': count(statistics.lead_clipped_ticks),
        'halts': _tally(statistics.halts),
        'chunk_remaining_s': seconds(statistics.chunk_remaining_s),
        'episode': count(statistics.episode),
        'step': count(statistics.step),
    }


def count(value: int) -> str:
    """Write an integer."""
    return str(value)


def flag(value: bool) -> str:
    """Write a truth value."""
    return 'true' if value else 'false'


def number(value: float | None) -> str:
    """Write a number with four decimals."""
    return NONE if value is None else f'{value:.4f}'


ratio = number


def seconds(value: float | None) -> str:
    """Write a duration in seconds with three decimals."""
    return NONE if value is None else f'{value:.3f}'


def milliseconds(value_s: float | None) -> str:
    """Write a duration given in seconds as milliseconds with two decimals."""
    return NONE if value_s is None else f'{value_s * 1e3:.2f}'


def stamp(value_s: float) -> str:
    """Write a point in time in seconds with six decimals."""
    return f'{value_s:.6f}'


def _tally(counts: Mapping[str, int]) -> str:
    return ', '.join(f'{name} {number}' for name, number in sorted(counts.items())) or NONE
