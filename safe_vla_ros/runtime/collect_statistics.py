"""Collects a snapshot of everything that was counted."""

from __future__ import annotations

from safe_vla_ros.runtime.controller import Controller
from safe_vla_ros.runtime.inference_scheduler import InferenceScheduler
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.statistics import RuntimeStatistics


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
