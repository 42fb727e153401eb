"""Epochs and episodes: when the policy's memory begins anew, and why."""

from __future__ import annotations

from safe_vla_ros.types import EpisodeMemory, Policy, PruningSettings


class Episodes:
    """Owns the memory of the episode that is running. Not thread-safe.

    An epoch grows with everything that makes older chunks worthless; the first inference in it gets
    a new memory, so that one still running in an older epoch writes where nobody looks any more.

    Attributes:
        epoch: Grows with a new instruction, a reset, a pause, an activation and a deactivation.
        episode: Number of the episode, from 1; 0 before the first inference.
        step: Number of the next inference in the episode, from 0.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._memory: EpisodeMemory | None = None
        self._reason = 'episode_start'
        self.epoch = 0
        self.episode = 0
        self.step = 0

    def begin_epoch(self, reason: str) -> None:
        """Let the next inference begin an episode.

        Args:
            reason: One of ``REFRESH_REASONS``, for its first key step; the start of an episode in
                which nothing was inferred is kept as the reason.
        """
        if self._memory is not None or self._reason != 'episode_start':
            self._reason = reason
        self._memory = None
        self.epoch += 1

    def memory_for(
        self, stamp_s: float, pruning: PruningSettings, *, after_gap: bool
    ) -> EpisodeMemory:
        """Return the memory for an inference, cleared where its reference must not be used.

        Args:
            stamp_s: The observation's stamp, seconds.
            pruning: Says how old a reference may be.
            after_gap: Whether the stream of observations was interrupted since the last inference.
        """
        if self._memory is None:
            self._memory = self._policy.new_episode()
            if self._reason != 'episode_start':
                self._memory.clear(self._reason)
            self.episode += 1
            self.step = 0
            return self._memory
        reference_s = self._memory.reference_stamp_s
        oldest_s = stamp_s - pruning.max_reference_age_s
        if after_gap:
            self._memory.clear('observation_gap')
        elif pruning.max_reference_age_s > 0.0 and (reference_s or stamp_s) < oldest_s:
            self._memory.clear('max_age')
        return self._memory
