"""What was counted and measured while the runtime ran, taken at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safe_vla_ros.runtime.controller import Controller
from safe_vla_ros.runtime.halt_reasons import HaltKind
from safe_vla_ros.runtime.inference_counts import Latencies
from safe_vla_ros.runtime.inference_scheduler import InferenceScheduler
from safe_vla_ros.runtime.input_store import InputStore


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


def take_statistics(
    inputs: InputStore,
    controller: Controller,
    scheduler: InferenceScheduler,
    instruction: str,
    now_s: float,
) -> RuntimeStatistics:
    """Return a snapshot at a time of the clock."""
    counts, ticks = scheduler.counts, controller.counts
    jump_m_s, jump_rad_s = counts.seam_jumps()
    return RuntimeStatistics(
        ages_s=inputs.ages_s(now_s),
        camera_skew_s=inputs.skew_s(),
        images_received={name: slot.received for name, slot in inputs.cameras.items()},
        images_dropped={name: slot.dropped for name, slot in inputs.cameras.items()},
        inferences=counts.inferences,
        accepted=counts.accepted,
        discarded=counts.discarded,
        failures=counts.failures,
        refused=counts.refused,
        consecutive_failures=scheduler.failures,
        latencies=counts.latencies(),
        last_latency_s=counts.last_latency_s,
        warm_up_latency_s=counts.warm_up_latency_s,
        last_observation_age_s=counts.last_observation_age_s,
        skipped_actions=counts.skipped_actions(),
        seam_jump_m_s=jump_m_s,
        seam_jump_rad_s=jump_rad_s,
        played_ticks=ticks['played'],
        starved_ticks=ticks['starved'],
        speed_clipped_ticks=ticks['speed_clipped'],
        acceleration_clipped_ticks=ticks['acceleration_clipped'],
        workspace_clipped_ticks=ticks['workspace_clipped'],
        lead_clipped_ticks=ticks['lead_clipped'],
        halts=dict(controller.halts),
        chunk_remaining_s=controller.player.remaining_s,
        chunk_duration_s=counts.chunk_duration_s,
        epoch=scheduler.episodes.epoch,
        episode=scheduler.episodes.episode,
        step=scheduler.episodes.step,
        instruction=instruction,
    )
