"""Where inferences are asked for and their results are taken in."""

from __future__ import annotations

from safe_vla_ros.runtime.controller import Controller
from safe_vla_ros.runtime.episodes import Episodes
from safe_vla_ros.runtime.halt_reasons import HaltReason, failures, non_finite
from safe_vla_ros.runtime.inference import InferenceJob, InferenceOutcome, InferenceReport
from safe_vla_ros.runtime.inference_counts import InferenceCounts
from safe_vla_ros.runtime.input_store import InputStore
from safe_vla_ros.runtime.playback import NO_SEAM, Seam
from safe_vla_ros.runtime.settings import ControlSettings
from safe_vla_ros.types import ActionChunk, Policy, PruningSettings


class InferenceScheduler:
    """Hands out one inference at a time and decides what its result is good for. Not thread-safe.

    Attributes:
        episodes: Epochs and the policy's memory.
        counts: What was measured.
        failed: Why inference has failed for good; None otherwise.
        failures: Failures in a row.
        waits_for: Why no inference could begin when last asked; empty when one could.
        too_late: Why the newest chunk was too old to be played; empty when it was not.
    """

    def __init__(self, policy: Policy) -> None:
        self.episodes = Episodes(policy)
        self.counts = InferenceCounts()
        self.failed: HaltReason | None = None
        self.failures = 0
        self.waits_for = ''
        self.too_late = ''
        self._in_flight: InferenceJob | None = None
        self._warm = False

    def activate(self) -> None:
        """Begin anew: the next inference is a warm-up, and what failed may be tried again."""
        self.recover()
        self._warm = False

    def recover(self) -> None:
        """Leave ``failed``."""
        self.failed = None
        self.too_late = ''
        self.failures = 0

    def begin(
        self,
        inputs: InputStore,
        controller: Controller,
        *,
        instruction: str,
        now_s: float,
        control: ControlSettings,
        pruning: PruningSettings,
    ) -> InferenceJob | None:
        """Take the newest inputs for an inference if one is due and they make a new observation.

        Nothing stands against moving when this is asked.

        Returns:
            The job; None when none is due.
        """
        self.waits_for = ''
        if self._in_flight is not None and self._in_flight.epoch == self.episodes.epoch:
            return None
        controller.player.advance(now_s)
        if not controller.player.is_due(control.execute_steps * control.action_period_s):
            return None
        self.waits_for = inputs.not_fresh(controller.fresh_after_s, control.max_camera_skew_s)
        if self.waits_for:
            return None
        taken = inputs.take(instruction)
        stamp_s, gap = taken.header.stamp_s, inputs.had_gap()
        memory = self.episodes.memory_for(stamp_s, pruning, after_gap=gap)
        job = InferenceJob(
            inputs=taken,
            memory=memory,
            pruning=pruning,
            started_s=now_s,
            epoch=self.episodes.epoch,
            generation=controller.generation,
            episode=self.episodes.episode,
            step=self.episodes.step,
            warm_up=not self._warm,
        )
        self.episodes.step += 1
        self._warm = True
        self._in_flight = job
        return job

    def take_in(
        self,
        outcome: InferenceOutcome,
        controller: Controller,
        now_s: float,
        control: ControlSettings,
    ) -> InferenceReport:
        """Play a chunk, or say why not; count failures and halt on what must not go on."""
        job, chunk = outcome.job, outcome.chunk
        if self._in_flight is job:
            self._in_flight = None
        latency_s, age_s = now_s - job.started_s, now_s - job.stamp_s
        self.counts.ended(latency_s, warm_up=job.warm_up)
        seam: Seam | None = None
        self.too_late = ''
        if chunk is None:
            why_not = outcome.error
            self._fail(outcome, controller, now_s, control)
        elif job.epoch != self.episodes.epoch:
            why_not = 'a new episode, a pause or a deactivation came in between'
        elif job.generation != controller.generation:
            why_not = 'the arm was halted in between'
            self.failures = 0
        elif age_s > control.max_chunk_age_s:
            why_not = self.too_late = (
                f'a chunk came {age_s:.1f} s after its observation, allowed is '
                f'max_chunk_age_s ({control.max_chunk_age_s:g} s)'
            )
            self.failures = 0
        else:
            seam = self._splice(chunk, job, controller, now_s, control)
            why_not = '' if seam else 'all of its actions had been played when it came'
            self.failures = 0
        if seam is None and chunk is not None:
            self.counts.discarded += 1
        return InferenceReport(
            outcome,
            accepted=seam is not None,
            why_not=why_not,
            latency_s=latency_s,
            observation_age_s=age_s,
            seam=seam or NO_SEAM,
            failures=self.failures,
        )

    def _splice(
        self,
        chunk: ActionChunk,
        job: InferenceJob,
        controller: Controller,
        now_s: float,
        control: ControlSettings,
    ) -> Seam | None:
        controller.player.advance(now_s)
        seam = controller.player.splice(
            chunk,
            stamp_s=job.stamp_s,
            period_s=control.action_period_s,
            blending=control.blending,
            blend_steps=control.blend_steps,
            ensemble_horizon=control.ensemble_horizon,
        )
        if seam is not None:
            self.counts.chunk_duration_s = len(chunk) * control.action_period_s
            age_s = now_s - job.stamp_s
            self.counts.spliced(seam.skipped_actions, seam.jump_m_s, seam.jump_rad_s, age_s)
        return seam

    def _fail(
        self,
        outcome: InferenceOutcome,
        controller: Controller,
        now_s: float,
        control: ControlSettings,
    ) -> None:
        self.counts.failures += 1
        self.counts.refused += outcome.non_finite
        if outcome.job.epoch != self.episodes.epoch:
            return
        self.failures += 1
        if self.failures >= control.max_consecutive_failures:
            self.failed = failures(self.failures, outcome.error)
            controller.halt(self.failed, now_s)
        elif outcome.non_finite and outcome.job.generation == controller.generation:
            controller.halt(non_finite(outcome.error), now_s)
