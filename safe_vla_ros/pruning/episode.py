"""What the pruner remembers of one episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from safe_vla_ros.types import REFRESH_REASONS

EPISODE_START = 'episode_start'


@dataclass(frozen=True)
class SaliencyReference:
    """The newest key step.

    Attributes:
        tokens: v_ref as unit vectors, float32 [N, D]; only directions are ever compared.
        saliency: S_ref of the remembered layers, float32 [A, N].
        layers: The remembered layers in the order of ``saliency``.
        stamp_s: Observation stamp of the key step, seconds.
        step: Which step of the episode it was, from 0.
    """

    tokens: Tensor
    saliency: Tensor
    layers: tuple[int, ...]
    stamp_s: float
    step: int


@dataclass(frozen=True)
class Signature:
    """What a reference depends on; a change of it makes the next step a key step.

    Attributes:
        method: Name of the pruner and everything that decides which layers and rows it reads.
        layout: Visual tokens by camera and their width.
    """

    method: Hashable
    layout: Hashable


class EpisodeState:
    """Memory of one episode, owned by the caller; satisfies ``types.EpisodeMemory``.

    It changes only in ``clear`` and when a step has succeeded. Not thread-safe.
    """

    def __init__(self) -> None:
        self.reference: SaliencyReference | None = None
        self.steps = 0
        self.key_steps: Counter[str] = Counter()
        self.random_state: Tensor | None = None
        self.random_seed: int | None = None
        self._pending_reason = EPISODE_START
        self._signature: Signature | None = None

    @property
    def reference_stamp_s(self) -> float | None:
        """Observation stamp of the newest key step, seconds; None when the memory is empty."""
        return None if self.reference is None else self.reference.stamp_s

    def clear(self, reason: str) -> None:
        """Forget the reference; the next step is a key step with this reason.

        Counters start again only with ``episode_start``.

        Args:
            reason: One of ``types.REFRESH_REASONS``.

        Raises:
            ValueError: The reason is not one of them.
        """
        if reason not in REFRESH_REASONS:
            allowed = ', '.join(REFRESH_REASONS)
            raise ValueError(f'reason is {reason!r}, allowed are {allowed}')
        self.reference = None
        self._signature = None
        self._pending_reason = reason
        if reason == EPISODE_START:
            self.steps = 0
            self.key_steps.clear()

    def refresh_reason(self, signature: Signature) -> str | None:
        """Tell why a step with this signature must be a key step; None when the reference holds."""
        if self._signature is not None and self._signature.layout != signature.layout:
            return 'layout'
        if self._signature is not None and self._signature != signature:
            return 'parameters'
        return self._pending_reason if self.reference is None else None

    def remember(self, reference: SaliencyReference, signature: Signature, reason: str) -> None:
        """Store a key step that succeeded."""
        self.reference = reference
        self._signature = signature
        self.key_steps[reason] += 1
        self.steps += 1

    def advance(self, signature: Signature) -> None:
        """Count a step that succeeded without storing anything.

        A step of another method or layout ends the life of the reference.
        """
        if self._signature != signature:
            self.reference = None
        self._signature = signature
        self.steps += 1


def make_episode() -> EpisodeState:
    """Return an empty memory whose first key step has the reason ``episode_start``."""
    return EpisodeState()
