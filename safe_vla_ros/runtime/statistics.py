"""What is counted and measured while the runtime runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safe_vla_ros.runtime.halt_reasons import HaltKind

WINDOW = 100


@dataclass(frozen=True)
class Latencies:
    """Latency of the last inferences, seconds; None before the second one.

    Attributes:
        p50_s, p95_s, max_s: Over the last hundred, the warm-up excluded.
    """

    p50_s: float | None
    p95_s: float | None
    max_s: float | None


@dataclass(frozen=True)
class RuntimeStatistics:
    """A snapshot for diagnostics.

    Attributes:
        ages_s: Age by stamp of each camera, ``ee_pose`` and ``joint_states``, seconds.
        camera_skew_s: Difference between the newest and the oldest image, seconds.
        images_received, images_dropped: By camera; dropped ones were replaced before being used.
        inferences: Inferences that ended.
        accepted: Those whose chunk was played.
        discarded: Those overtaken by a halt or a new episode, or too late to play.
        failures: Those that ended with an error; ``refused`` of them were not finite.
        consecutive_failures: Failures in a row now.
        latencies: From begin to finish.
        last_latency_s, warm_up_latency_s: Seconds, or None.
        last_observation_age_s: Age of the last played chunk's observation at its splice, or None.
        skipped_actions: Mean number of skipped actions over the last hundred chunks, or None.
        seam_jump_m_s, seam_jump_rad_s: Largest seam jumps over the last hundred, or None.
        played_ticks, starved_ticks: Control ticks with a chunk; those after its end.
        speed_clipped_ticks, acceleration_clipped_ticks: Ticks in which a limit changed the twist.
        workspace_clipped_ticks, lead_clipped_ticks: The same; lead is that of the pose target.
        halts: Halts that ended a motion or a plan, by kind of reason.
        chunk_remaining_s: What the plan still has, seconds.
        chunk_duration_s: How long the last chunk lasts, seconds, or None.
        epoch, episode, step: Where the runtime stands.
        instruction: The task in words.
    """

    ages_s: Mapping[str, float]
    camera_skew_s: float
    images_received: Mapping[str, int]
    images_dropped: Mapping[str, int]
    inferences: int
    accepted: int
    discarded: int
    failures: int
    refused: int
    consecutive_failures: int
    latencies: Latencies
    last_latency_s: float | None
    warm_up_latency_s: float | None
    last_observation_age_s: float | None
    skipped_actions: float | None
    seam_jump_m_s: float | None
    seam_jump_rad_s: float | None
    played_ticks: int
    starved_ticks: int
    speed_clipped_ticks: int
    acceleration_clipped_ticks: int
    workspace_clipped_ticks: int
    lead_clipped_ticks: int
    halts: Mapping[HaltKind, int]
    chunk_remaining_s: float
    chunk_duration_s: float | None
    epoch: int
    episode: int
    step: int
    instruction: str


class InferenceCounts:
    """Counts inferences and keeps windows of what was measured about them."""

    def __init__(self) -> None:
        self.inferences = 0
        self.accepted = 0
        self.discarded = 0
        self.failures = 0
        self.refused = 0
        self.last_latency_s: float | None = None
        self.warm_up_latency_s: float | None = None
        self.last_observation_age_s: float | None = None
        self.chunk_duration_s: float | None = None
        self._latencies_s: deque[float] = deque(maxlen=WINDOW)
        self._skipped: deque[float] = deque(maxlen=WINDOW)
        self._jumps_m_s: deque[float] = deque(maxlen=WINDOW)
        self._jumps_rad_s: deque[float] = deque(maxlen=WINDOW)

    def ended(self, latency_s: float, *, warm_up: bool) -> None:
        """Count an inference that ended, well or not."""
        self.inferences += 1
        if warm_up:
            self.warm_up_latency_s = latency_s
        else:
            self.last_latency_s = latency_s
            self._latencies_s.append(latency_s)

    def spliced(
        self, skipped: float, jump_m_s: float | None, jump_rad_s: float | None, age_s: float
    ) -> None:
        """Count a chunk that is played from now on."""
        self.accepted += 1
        self.last_observation_age_s = age_s
        self._skipped.append(skipped)
        if jump_m_s is not None and jump_rad_s is not None:
            self._jumps_m_s.append(jump_m_s)
            self._jumps_rad_s.append(jump_rad_s)

    def latencies(self) -> Latencies:
        """Return the percentiles of the window."""
        if not self._latencies_s:
            return Latencies(None, None, None)
        p50_s, p95_s, max_s = np.percentile(self._latencies_s, [50, 95, 100]).tolist()
        return Latencies(p50_s, p95_s, max_s)

    def skipped_actions(self) -> float | None:
        """Return the mean number of skipped actions of the window."""
        return sum(self._skipped) / len(self._skipped) if self._skipped else None

    def seam_jumps(self) -> tuple[float | None, float | None]:
        """Return the largest jumps of the window, m/s and rad/s."""
        return max(self._jumps_m_s, default=None), max(self._jumps_rad_s, default=None)
