"""Plays action chunks: says which mean twist is due, and splices a new chunk without a jump."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from safe_vla_ros.runtime.action_plan import (
    LiveChunk,
    Plan,
    adaptive_ensemble,
    crossfade,
    ensemble,
    ensemble_weights,
    switch,
    weigh_live,
)
from safe_vla_ros.runtime.action_time import ActionTime
from safe_vla_ros.types import ActionChunk, Float64Array

_TOLERANCE_S = 1e-6
ENSEMBLE, COGACT_ENSEMBLE = 'ensemble', 'cogact_ensemble'


@dataclass(frozen=True)
class Seam:
    """How a new chunk met what was being played.

    Attributes:
        skipped_s: Action time played since the observation, which the chunk skips, seconds.
        skipped_actions: The same in actions.
        jump_m_s, jump_rad_s: How far the new plan's twist is from the one that was being played, at
            equal action time and before blending; None when nothing was being played.
    """

    skipped_s: float
    skipped_actions: float
    jump_m_s: float | None
    jump_rad_s: float | None


NO_SEAM = Seam(0.0, 0.0, None, None)
"""Of a chunk that is not played."""


class ChunkPlayer:
    """Plays chunks in action time, which runs only while their twists are being executed.

    The clock's time goes in with ``advance``; a chunk's time zero is its observation's stamp, and
    what the history says was played since then is skipped, neither more nor less. Not thread-safe.
    """

    def __init__(self) -> None:
        self._time = ActionTime()
        self._now_s: float | None = None
        self._plan: Plan | None = None
        self._live: list[LiveChunk] = []
        self._blending = 'none'
        self._executing: Float64Array | None = None
        self._in_force_until_s = self._hold_s = math.inf
        self._owed = np.zeros(6)
        self._held_s = 0.0

    @property
    def has_plan(self) -> bool:
        """Whether there is a chunk, ended or not."""
        return self._plan is not None

    @property
    def ended(self) -> bool:
        """Whether the plan has been played to its end."""
        return self._plan is not None and self._time.total_s >= self._plan.end_s - _TOLERANCE_S

    @property
    def held_s(self) -> float:
        """How long the last twist has been held after the plan's end, seconds."""
        return self._held_s

    @property
    def remaining_s(self) -> float:
        """Action time that the plan still has, seconds."""
        return 0.0 if self._plan is None else max(0.0, self._plan.end_s - self._time.total_s)

    @property
    def chunk_time_s(self) -> float:
        """The newest chunk's own action time, the skipped part included, seconds."""
        return self._time.total_s - self._live[-1].plan.start_s if self._live else 0.0

    def played_since(self, stamp_s: float) -> float:
        """Return the action time played between a time of the clock and the last ``advance``."""
        return self._time.total_s - self._time.at(stamp_s)

    def is_due(self, execute_s: float) -> bool:
        """Tell whether a new chunk is wanted.

        Args:
            execute_s: Action time of a chunk after which the next one is wanted, seconds.
        """
        return not self._live or self.ended or self.chunk_time_s >= execute_s - _TOLERANCE_S

    def advance(self, now_s: float) -> None:
        """Account for the time since the last call, during which the last twist was executed.

        Args:
            now_s: The clock's time; a time before the last call's changes nothing.
        """
        then_s, self._now_s = self._now_s, max(now_s, self._now_s or now_s)
        if then_s is None or now_s <= then_s:
            return
        if self._plan is None or self._executing is None:
            self._time.record(then_s, now_s, 0.0)
            return
        executed_s = max(0.0, min(now_s, self._in_force_until_s) - then_s)
        start_s = self._time.total_s
        left_s = max(0.0, self._plan.end_s - start_s)
        played_s = min(executed_s, left_s)
        self._time.record(then_s, now_s, played_s)
        begin_s = start_s + self._held_s
        self._held_s += executed_s - played_s
        self._owed += self._planned(begin_s, begin_s + executed_s) - self._executing * executed_s

    def next_twist(
        self, interval_s: float, *, longest_s: float = math.inf, hold_s: float = math.inf
    ) -> Float64Array:
        """Return the mean planned twist of the interval that begins now, and take it as executed.

        What earlier intervals moved too much or too little, because they turned out longer or
        shorter than foretold, is made up for, so that the displacement of the plan is kept.

        Args:
            interval_s: How long the twist will be executed, as far as is known, seconds.
            longest_s: How long it is executed before the robot stops by itself, seconds.
            hold_s: How long the last twist is held after the plan's end, seconds.

        Returns:
            float64 [6]: m/s, then rad/s, in the frame of the chunk's actions.
        """
        if self._plan is None:
            return np.zeros(6)
        self._hold_s = hold_s
        begin_s = self._time.total_s + self._held_s
        twist = self._planned(begin_s, begin_s + interval_s) / interval_s
        twist += self._owed / max(interval_s, self._live[-1].period_s)
        self._executing = twist
        self._in_force_until_s = (self._now_s or 0.0) + longest_s
        return twist

    def opening(self) -> float | None:
        """Return the gripper's opening target 0..1 of the action being played, or None."""
        if not self._live:
            return None
        now_s = self._time.total_s
        if self._blending not in (ENSEMBLE, COGACT_ENSEMBLE):
            return self._live[-1].opening_at(now_s)
        live = [chunk for chunk in self._live if chunk.plan.end_s > now_s] or self._live[-1:]
        if self._blending == COGACT_ENSEMBLE:
            weights = weigh_live(live, now_s)
        else:
            weights = ensemble_weights(len(live))
        openings = np.array([chunk.opening_at(now_s) for chunk in live])
        return float(weights @ openings / weights.sum())

    def splice(
        self,
        chunk: ActionChunk,
        *,
        stamp_s: float,
        period_s: float,
        blending: str = 'none',
        blend_steps: int = 0,
        ensemble_horizon: int = 7,
    ) -> Seam | None:
        """Take over a new chunk at equal action time.

        Args:
            chunk: The plan; finite.
            stamp_s: Time of the clock at which its first action begins: the observation's stamp.
            period_s: Time that one action takes, seconds.
            blending: ``none``, ``crossfade``, ``ensemble`` or ``cogact_ensemble``.
            blend_steps: Length of a crossfade in actions.
            ensemble_horizon: Newest chunks that ``cogact_ensemble`` averages.

        Returns:
            The seam, or None when all of the chunk had been played already and nothing was changed.
        """
        now_s = self._time.total_s
        origin_s = self._time.at(stamp_s)
        new = LiveChunk(
            Plan.from_chunk(chunk, origin_s=origin_s, period_s=period_s), chunk.gripper, period_s
        )
        if new.plan.end_s <= now_s + _TOLERANCE_S:
            return None
        jump_m_s, jump_rad_s = self._jump(new.plan)
        self._live = [live for live in self._live if live.plan.end_s > now_s + _TOLERANCE_S]
        self._blending = blending
        if blending == ENSEMBLE:
            self._live.append(new)
            self._plan = ensemble([live.plan for live in self._live], start_s=now_s)
        elif blending == COGACT_ENSEMBLE:
            self._live = [*self._live, new][-ensemble_horizon:]
            self._plan = adaptive_ensemble(self._live, start_s=now_s)
        else:
            self._live = [new]
            if blending == 'crossfade' and self._plan is not None:
                length_s = blend_steps * period_s
                self._plan = crossfade(self._plan, new.plan, start_s=now_s, length_s=length_s)
            else:
                self._plan = switch(new.plan, start_s=now_s)
        self._held_s = 0.0
        skipped_s = now_s - origin_s
        return Seam(skipped_s, skipped_s / period_s, jump_m_s, jump_rad_s)

    def rest(self) -> list[tuple[float, Float64Array]]:
        """Return what is still planned: durations in seconds and displacements [6], in order."""
        if self._plan is None or self.ended:
            return []
        now_s, end_s = self._time.total_s, self._plan.end_s
        knots = [now_s, *self._plan.knots_between(now_s, end_s), end_s]
        at = [self._plan.displacement_at(knot) for knot in knots]
        return [
            (knots[i + 1] - knots[i], np.asarray(at[i + 1] - at[i])) for i in range(len(knots) - 1)
        ]

    def clear(self) -> None:
        """Drop every chunk; action time stands still until a new one is played."""
        self._plan = None
        self._live = []
        self._executing = None
        self._owed = np.zeros(6)
        self._held_s = 0.0

    def forget(self) -> None:
        """Drop every chunk and the history: the clock jumped."""
        self.clear()
        self._time.forget()
        self._now_s = None

    def _planned(self, start_s: float, end_s: float) -> Float64Array:
        if self._plan is None:
            return np.zeros(6)
        last_s = self._plan.end_s + self._hold_s
        start_s, end_s = min(start_s, last_s), min(end_s, last_s)
        return self._plan.displacement_at(end_s) - self._plan.displacement_at(start_s)

    def _jump(self, new: Plan) -> tuple[float | None, float | None]:
        if self._plan is None or self._executing is None:
            return None, None
        now_s = self._time.total_s
        jump = new.twist_at(now_s) - self._plan.twist_at(now_s + self._held_s)
        return math.hypot(*jump[:3]), math.hypot(*jump[3:])
