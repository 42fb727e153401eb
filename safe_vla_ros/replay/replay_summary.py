"""What a replay says at the end: numbers per method over all bags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_vla_ros.replay.bag_replay import COMPLETE, FAILED, INTERRUPTED
from safe_vla_ros.replay.metrics import MetricSums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = 1
"""Version of summary.json and result.json; results of different versions are not merged."""

BAG_KEYS = (
    'index',
    'bag',
    'key',
    'status',
    'error',
    'notes',
    'duration_s',
    'played_s',
    'messages',
    'skipped',
    'rows',
)


def make_summary(
    header: Mapping[str, Any], bags: Sequence[str], results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Join the results of bags.

    Args:
        header: What was asked: ``settings`` and more, copied.
        bags: Every bag that was to be replayed, in order.
        results: ``result.json`` of those that were, in any order.

    Returns:
        What ``summary.json`` holds. Sums run over the bags in their order, so that the same bags
        give the same numbers however they were spread.
    """
    ordered = sorted(results, key=lambda result: int(result['index']))
    partial = _why_partial(bags, ordered)
    methods: dict[str, MetricSums] = {}
    wall_clock: dict[str, float] = {}
    for result in ordered:
        for method, values in result['methods'].items():
            methods.setdefault(method, MetricSums()).merge(MetricSums.from_json(values['metrics']))
        for name, seconds in result.get('wall_clock', {}).items():
            wall_clock[name] = wall_clock.get(name, 0.0) + seconds
    inferences = sum(int(metrics.counts['inferences']) for metrics in methods.values())
    messages = sum(int(result.get('messages', 0)) for result in ordered)
    return {
        'format': FORMAT,
        **header,
        'complete': not partial,
        'why_partial': partial,
        'bag_list': list(bags),
        'bags': [{key: result.get(key) for key in BAG_KEYS} for result in ordered],
        'methods': {method: describe(metrics) for method, metrics in methods.items()},
        'speed': _speed(wall_clock, messages, inferences),
        'tallies': {method: metrics.to_json() for method, metrics in methods.items()},
    }


def describe(metrics: MetricSums) -> dict[str, Any]:
    """Return one method's numbers as people read them; None where nothing was measured."""
    counts = metrics.counts
    inferences = counts['inferences']
    moving_s = counts['motion_s']
    states = {
        name.removeprefix('state_s/'): seconds
        for name, seconds in sorted(counts.items())
        if name.startswith('state_s/')
    }
    return {
        'inferences': inferences,
        'accepted': counts['accepted'],
        'errors': counts['errors'],
        'kept_share': _share(counts['tokens_kept'], counts['tokens_total']),
        'macs_share': _share(counts['decoder_macs'], counts['decoder_macs_full']),
        'decoder_gmacs': _share(counts['decoder_macs'] / 1e9, inferences),
        'key_steps': counts['key_steps'],
        'key_step_share': _share(counts['key_steps'], inferences),
        'key_step_reasons': {
            name.removeprefix('key_steps/'): number
            for name, number in sorted(counts.items())
            if name.startswith('key_steps/')
        },
        'similarity': metrics.get('similarity').summary(),
        'difference': {
            name: metrics.get(f'difference/{name}').summary()
            for name in ('position_m', 'rotation_rad', 'gripper', 'relative')
        },
        'recorded': {
            'ticks': counts['recorded/ticks'],
            'only_recorded_ticks': counts['recorded/only_recorded'],
            'only_replayed_ticks': counts['recorded/only_replayed'],
            'linear_m_s_rms': metrics.get('recorded/linear_m_s').rms,
            'angular_rad_s_rms': metrics.get('recorded/angular_rad_s').rms,
            'direction_cosine': metrics.get('recorded/direction').mean,
            'gripper': metrics.get('recorded/gripper').mean,
        },
        'latency_ms': metrics.get('latency_ms').summary(),
        'observation_age_s': metrics.get('observation_age_s').summary(),
        'skipped_actions': metrics.get('skipped_actions').summary(),
        'seam_jump_m_s': metrics.get('seam_jump_m_s').summary(),
        'seam_jump_rad_s': metrics.get('seam_jump_rad_s').summary(),
        'acceleration_m_s2_rms': metrics.get('acceleration_m_s2').rms,
        'jerk_m_s3_rms': metrics.get('jerk_m_s3').rms,
        'reversals_per_s': _share(counts['reversals'], moving_s),
        'motion_s': moving_s,
        'starved_share': _share(
            counts['starved_ticks'], counts['played_ticks'] + counts['starved_ticks']
        ),
        'clipped_share': {
            name: _share(counts[f'{name}_clipped_ticks'], counts['played_ticks'])
            for name in ('speed', 'acceleration', 'workspace', 'lead')
        },
        'halts': {
            name.removeprefix('halts/'): number
            for name, number in sorted(counts.items())
            if name.startswith('halts/')
        },
        'state_s': states,
        'stage_ms': {
            name.removeprefix('stage_ms/'): distribution.summary()
            for name, distribution in sorted(metrics.distributions.items())
            if name.startswith('stage_ms/')
        },
    }


def _why_partial(bags: Sequence[str], results: Sequence[Mapping[str, Any]]) -> list[str]:
    reasons = []
    missing = len(bags) - len(results)
    if missing:
        reasons.append(f'{missing} of {len(bags)} bags are not in this result')
    statuses = [result['status'] for result in results]
    if INTERRUPTED in statuses:
        reasons.append(f'{statuses.count(INTERRUPTED)} bags were interrupted')
    damaged = [s for s in statuses if s not in {COMPLETE, INTERRUPTED, FAILED}]
    if damaged:
        reasons.append(f'{len(damaged)} bags broke off, because they are damaged')
    if FAILED in statuses:
        reasons.append(f'{statuses.count(FAILED)} bags could not be replayed')
    return reasons


def _speed(
    wall_clock: Mapping[str, float], messages: int, inferences: int
) -> dict[str, float | None]:
    return {
        'message_ms': _share(1000 * wall_clock.get('messages_s', 0.0), messages),
        'inference_overhead_ms': _share(1000 * wall_clock.get('inferences_s', 0.0), inferences),
        'inference_model_ms': _share(1000 * wall_clock.get('model_s', 0.0), inferences),
        'ticks_s': wall_clock.get('ticks_s', 0.0),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
