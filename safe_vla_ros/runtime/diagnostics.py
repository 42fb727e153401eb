"""What is told about the running policy, as keys and values in fixed formats.

The node publishes these on ``/diagnostics`` and ``~/inference``, the replay writes them; a key has
the same name, format and meaning everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from safe_vla_ros.errors import shortened
from safe_vla_ros.runtime.health import ERROR, OK, WARN
from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
        self._all = PruningTotals()
        self._of_episode = PruningTotals()

    def add(self, record: PruningRecord, episode: int) -> None:
        """Count one inference.

        Args:
            record: What pruning did.
            episode: Number of its episode; a new one starts the episode's counts again.
        """
        if episode != self.episode:
            self.episode, self._of_episode = episode, PruningTotals()
        one = PrunedPass.of(record)
        self._all.add(one)
        self._of_episode.add(one)

    def values(self) -> dict[str, str]:
        """Return passes, key steps with their reasons, and the share of tokens computed."""
        totals, episode = self._all, self._of_episode
        return {
            'passes': count(totals.passes),
            'key_steps': count(totals.key_steps),
            'key_step_share': ratio(totals.key_step_share),
            'key_step_reasons': _tally(totals.reasons.items()),
            'computed_share_all_passes': ratio(totals.kept_share),
            'episode_passes': count(episode.passes),
            'episode_key_steps': count(episode.key_steps),
            'episode_key_step_reasons': _tally(episode.reasons.items()),
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
    level = OK if report.accepted else ERROR if report.outcome.error else WARN
    text = 'played' if report.accepted else report.why_not
    statuses = [TaskStatus('inference', level, text, report_values(report))]
    record = report.outcome.record
    if record is not None:
        text = 'key step' if record.key_step else 'renewed' if record.renews else 'pruned'
        statuses.append(TaskStatus('pruning', OK, text, record_values(record)))
    return statuses


def reset_status(report: InferenceReport) -> TaskStatus | None:
    """Return what ``~/subtask_reset`` says; None when the memory was not renewed."""
    record = report.outcome.record
    if record is None or not record.key_step or record.reason is None:
        return None
    values = subtask_reset_values(record, episode=report.job.episode, step=report.job.step)
    return TaskStatus('subtask_reset', OK, record.reason, values)


def report_values(report: InferenceReport) -> dict[str, str]:
    """Say what became of one inference."""
    job, outcome, seam = report.job, report.outcome, report.seam
    values = {
        'episode': count(job.episode),
        'step': count(job.step),
        'accepted': flag(report.accepted),
        'why_not': report.why_not or NONE,
        'error': outcome.error or NONE,
        'refused': flag(outcome.non_finite),
        'warm_up': flag(job.warm_up),
        'failures_consecutive': count(report.failures),
        'latency_ms': milliseconds(report.latency_s),
        'observation_stamp_s': stamp(job.stamp_s),
        'observation_age_s': seconds(report.observation_age_s),
        'skipped_actions': number(seam.skipped_actions),
        'seam_jump_m_s': number(seam.jump_m_s),
        'seam_jump_rad_s': number(seam.jump_rad_s),
    }
    if outcome.observation is not None:
        values['instruction'] = shortened(outcome.observation.instruction)
        for camera, header in outcome.observation.image_headers.items():
            values[f'image_stamp_s/{camera}'] = stamp(header.stamp_s)
    return values


def record_values(record: PruningRecord) -> dict[str, str]:
    """Say what pruning did at one inference."""
    one = PrunedPass.of(record)
    values = {
        'method': record.method,
        'tokens_total': count(one.tokens_total),
        'tokens_computed': count(one.tokens_kept),
        'pruning_ratio': ratio(record.pruning_ratio),
        'key_step': flag(record.key_step),
        'reason': record.reason or NONE,
        'similarity': ratio(record.similarity),
        'threshold': ratio(record.threshold),
        'residual': ratio(record.residual),
        'max_staleness': ratio(record.max_staleness),
        'context_bytes': count(record.context_bytes),
        'decoder_gmacs': number(record.decoder_macs / 1e9),
        'decoder_gmacs_full': number(record.decoder_macs_full / 1e9),
    }
    for camera, total in record.total.items():
        values[f'tokens_total/{camera}'] = count(total)
        values[f'tokens_computed/{camera}'] = count(record.kept[camera])
        if record.renews:
            values[f'oldest_token_steps/{camera}'] = count(int(record.ages[camera].max()))
    for stage, stage_ms in record.stage_ms.items():
        values[f'stage_ms/{stage}'] = f'{stage_ms:.2f}'
    for stage, macs in record.stage_macs.items():
        values[f'stage_gmacs/{stage}'] = number(macs / 1e9)
    return values


def read_pass(values: Mapping[str, str]) -> PrunedPass:
    """Read the numbers of one pass back from the keys of ``record_values``."""
    similarity = values['similarity']
    return PrunedPass(
        tokens_kept=int(values['tokens_computed']),
        tokens_total=int(values['tokens_total']),
        reason=values['reason'] if values['key_step'] == flag(True) else None,
        similarity=None if similarity == NONE else float(similarity),
        decoder_macs=round(1e9 * float(values['decoder_gmacs'])),
        decoder_macs_full=round(1e9 * float(values['decoder_gmacs_full'])),
    )


def subtask_reset_values(record: PruningRecord, *, episode: int, step: int) -> dict[str, str]:
    """Say why and when a key step renewed the method's memory."""
    return {
        'similarity': ratio(record.similarity),
        'threshold': ratio(record.threshold),
        'residual': ratio(record.residual),
        'max_staleness': ratio(record.max_staleness),
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
    values['incompatible_qos'] = _tally(incompatible_qos.items())
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
        'halts': _tally(statistics.halts.items()),
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


def _tally(counts: Iterable[tuple[str, int]]) -> str:
    return ', '.join(f'{name} {number}' for name, number in sorted(counts)) or NONE
