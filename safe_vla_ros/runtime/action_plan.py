"""A plan: the end effector's twist as a function of action time."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safe_vla_ros.types import ActionChunk, Float64Array

ENSEMBLE_DECAY = 0.01
AGREEMENT = 0.1
"""How much more a prediction counts that agrees with the newest: alpha of CogACT."""
_TOLERANCE_S = 1e-6


class Plan:
    """Twist over action time, linear between knots; beyond its end the last twist goes on.

    Action time is the time that actions have been played, in seconds, and stands still while
    nothing is played. A twist is float64 [6]: m/s, then rad/s.
    """

    def __init__(self, knots: Float64Array, first: Float64Array, last: Float64Array) -> None:
        """Make a plan of n segments.

        Args:
            knots: Increasing action times, float64 [n + 1], seconds.
            first: Twist at the beginning of each segment, float64 [n, 6].
            last: Twist at the end of each segment, float64 [n, 6].
        """
        lengths = np.diff(knots)[:, None]
        self._knots: list[float] = knots.tolist()
        self._first = first
        self._last = last
        self._slope = (last - first) / lengths
        self._displacement = np.zeros((len(knots), 6))
        np.cumsum((first + last) * (lengths / 2), axis=0, out=self._displacement[1:])

    @classmethod
    def from_chunk(cls, chunk: ActionChunk, *, origin_s: float, period_s: float) -> Plan:
        """Return the chunk's own plan: each action moves by its displacement during one period."""
        knots = origin_s + period_s * np.arange(len(chunk) + 1, dtype=np.float64)
        moves = np.hstack([chunk.translation_m, chunk.rotation_rad])
        twists = moves.astype(np.float64) / period_s
        return cls(knots, twists, twists)

    @property
    def start_s(self) -> float:
        """Action time at which the plan begins, seconds."""
        return self._knots[0]

    @property
    def end_s(self) -> float:
        """Action time at which the plan ends, seconds."""
        return self._knots[-1]

    def twist_at(self, action_time_s: float) -> Float64Array:
        """Return the planned twist [6] just after an action time."""
        if action_time_s >= self.end_s:
            return np.asarray(self._last[-1])
        index = max(0, bisect_right(self._knots, action_time_s) - 1)
        offset = action_time_s - self._knots[index]
        return np.asarray(self._first[index] + self._slope[index] * offset)

    def displacement_at(self, action_time_s: float) -> Float64Array:
        """Return the displacement [6], metres and radians, planned from the start to a time."""
        if action_time_s >= self.end_s:
            held = self._last[-1] * (action_time_s - self.end_s)
            return np.asarray(self._displacement[-1] + held)
        index = max(0, bisect_right(self._knots, action_time_s) - 1)
        offset = action_time_s - self._knots[index]
        twist = self._first[index] + self._slope[index] * (offset / 2)
        return np.asarray(self._displacement[index] + twist * offset)

    def knots_between(self, start_s: float, end_s: float) -> list[float]:
        """Return the knots strictly between two action times."""
        return [knot for knot in self._knots if start_s < knot < end_s]

    def _segments(self, knots: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Return the twist at both ends of every segment of a finer division, [n, 6] each."""
        middles = (knots[:-1] + knots[1:]) / 2
        index = np.searchsorted(self._knots, middles, side='right') - 1
        inside = np.clip(index, 0, len(self._first) - 1)
        base = np.asarray(self._knots)[inside]
        first = self._first[inside] + self._slope[inside] * (knots[:-1] - base)[:, None]
        last = self._first[inside] + self._slope[inside] * (knots[1:] - base)[:, None]
        beyond = index >= len(self._first)
        first[beyond] = last[beyond] = self._last[-1]
        return first, last


def switch(new: Plan, *, start_s: float) -> Plan:
    """Return the new plan from an action time on."""
    knots = np.array([start_s, *new.knots_between(start_s, new.end_s), new.end_s])
    return Plan(knots, *new._segments(knots))  # noqa: SLF001


def crossfade(old: Plan, new: Plan, *, start_s: float, length_s: float) -> Plan:
    """Mix two plans linearly at equal action time, then follow the new one.

    The fade is shortened to what both plans still have, so that nothing is mixed with a plan that
    has ended.

    Args:
        old: The plan being played.
        new: The plan that takes over; must end after ``start_s``.
        start_s: Action time of the first difference from ``old``, seconds.
        length_s: Action time after which only ``new`` counts, seconds.
    """
    fade_end = min(start_s + length_s, old.end_s, new.end_s)
    if fade_end - start_s < 1e-9:
        return switch(new, start_s=start_s)
    times = {start_s, fade_end, new.end_s}
    times.update(new.knots_between(start_s, new.end_s))
    times.update(old.knots_between(start_s, fade_end))
    knots = _without_slivers(times)
    old_first, old_last = old._segments(knots)  # noqa: SLF001
    new_first, new_last = new._segments(knots)  # noqa: SLF001
    weight = np.clip((knots - start_s) / (fade_end - start_s), 0.0, 1.0)[:, None]
    first = old_first + weight[:-1] * (new_first - old_first)
    last = old_last + weight[1:] * (new_last - old_last)
    return Plan(knots, first, last)


def ensemble(plans: Sequence[Plan], *, start_s: float) -> Plan:
    """Average all plans that are live at an action time, with weights exp(-0.01 i).

    i = 0 is the oldest (temporal ensembling of ACT, arXiv 2304.13705, section IV).

    Args:
        plans: Oldest first; at least one must end after ``start_s``.
        start_s: Action time at which the result begins, seconds.
    """
    end_s = max(plan.end_s for plan in plans)
    knots = _common_knots(plans, start_s=start_s, end_s=end_s)
    middles = (knots[:-1] + knots[1:]) / 2
    first = np.zeros((len(middles), 6))
    last = np.zeros((len(middles), 6))
    total = np.zeros((len(middles), 1))
    for age, weight in enumerate(ensemble_weights(len(plans))):
        plan = plans[age]
        live = ((middles >= plan.start_s) & (middles < plan.end_s))[:, None] * weight
        plan_first, plan_last = plan._segments(knots)  # noqa: SLF001
        first += live * plan_first
        last += live * plan_last
        total += live
    return Plan(knots, first / total, last / total)


def ensemble_weights(count: int) -> Float64Array:
    """Return the weights exp(-0.01 i) of ``count`` predictions, oldest first."""
    return np.asarray(np.exp(-ENSEMBLE_DECAY * np.arange(count)))


@dataclass(frozen=True)
class LiveChunk:
    """A chunk on the axis of action time.

    Attributes:
        plan: Its own plan, of constant twists.
        gripper: Opening targets 0..1, float64 [T].
        period_s: Time that one of its actions takes, seconds.
    """

    plan: Plan
    gripper: Float64Array
    period_s: float

    def opening_at(self, action_time_s: float) -> float:
        """Return the opening target 0..1 of the action at an action time, or of the nearest."""
        index = math.floor((action_time_s - self.plan.start_s + _TOLERANCE_S) / self.period_s)
        return float(self.gripper[min(max(index, 0), len(self.gripper) - 1)])

    def action_at(self, action_time_s: float) -> Float64Array:
        """Return the action [7] at an action time: what it moves (m, rad), and the opening."""
        moves = self.plan.twist_at(action_time_s) * self.period_s
        return np.append(moves, self.opening_at(action_time_s))


def adaptive_ensemble(chunks: Sequence[LiveChunk], *, start_s: float) -> Plan:
    """Average all chunks that are live at an action time, with ``adaptive_weights``.

    Args:
        chunks: Oldest first; at least one must end after ``start_s``.
        start_s: Action time at which the result begins, seconds.
    """
    plans = [chunk.plan for chunk in chunks]
    end_s = max(plan.end_s for plan in plans)
    knots = _common_knots(plans, start_s=start_s, end_s=end_s)
    twists = np.empty((len(knots) - 1, 6))
    for index, middle_s in enumerate((knots[:-1] + knots[1:]) / 2):
        live = [chunk for chunk in chunks if chunk.plan.start_s <= middle_s < chunk.plan.end_s]
        weights = weigh_live(live, middle_s)
        twists[index] = weights @ np.stack([chunk.plan.twist_at(middle_s) for chunk in live])
    return Plan(knots, twists, twists)


def weigh_live(chunks: Sequence[LiveChunk], action_time_s: float) -> Float64Array:
    """Return ``adaptive_weights`` of what chunks, oldest first, do at an action time."""
    return adaptive_weights(np.stack([chunk.action_at(action_time_s) for chunk in chunks]))


def adaptive_weights(predictions: Float64Array) -> Float64Array:
    """Weigh predictions of one action by how well they agree with the newest.

    w_i ~ exp(0.1 cos(newest, prediction_i)), so that what contradicts the newest, as another way
    to do the same does, counts less (CogACT's adaptive action ensemble, arXiv 2411.19650).

    Args:
        predictions: Oldest first, float64 [n, A].

    Returns:
        Weights that sum to 1, float64 [n]. A prediction of zeros agrees by 0 with all.
    """
    newest = predictions[-1]
    lengths = np.linalg.norm(predictions, axis=1) * np.linalg.norm(newest)
    weights = np.exp(AGREEMENT * (predictions @ newest) / (lengths + 1e-7))
    return np.asarray(weights / weights.sum())


def _common_knots(plans: Sequence[Plan], *, start_s: float, end_s: float) -> Float64Array:
    """Return the action times from start to end at which any of the plans changes or ends."""
    times = {start_s, end_s}
    for plan in plans:
        times.update(plan.knots_between(start_s, end_s))
        if start_s < plan.end_s:
            times.add(plan.end_s)
    return _without_slivers(times)


def _without_slivers(times: set[float]) -> Float64Array:
    """Return the times in order without neighbours closer than rounding can tell apart."""
    ordered = sorted(times)
    kept = [ordered[0]]
    for time in ordered[1:-1]:
        if time - kept[-1] > 1e-9 and ordered[-1] - time > 1e-9:
            kept.append(time)
    return np.array([*kept, ordered[-1]])
