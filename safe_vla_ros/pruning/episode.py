"""What the pruner remembers of one episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.types import REFRESH_REASONS

EPISODE_START = 'episode_start'
FAILURE = 'failure'


class Reference(Protocol):
    """What a method remembers; each method has a frozen class of its own."""

    @property
    def stamp_s(self) -> float:
        """Observation stamp of the newest key step, seconds."""
        ...


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

    It changes only in ``clear`` and when a step has succeeded; ``take`` is the exception. Not
    thread-safe.

    Attributes:
        reference: What the method remembers; None when the next step must be a key step.
        context: Keys and values that go with it; None for a method without.
        steps: Steps that have succeeded.
        key_steps: Key steps by reason.
    """

    def __init__(self) -> None:
        self.reference: Reference | None = None
        self.context: KeyValueContext | None = None
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

    @property
    def context_bytes(self) -> int:
        """Size of the keys and values that outlive a step, bytes; 0 for a method without."""
        return 0 if self.context is None else self.context.nbytes

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
        self._forget()
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

    def take(self) -> tuple[Reference | None, KeyValueContext | None]:
        """Hand the memory to a pass that will write into it.

        Until ``remember`` brings it back the episode is as after a failed pass: empty, so that the
        next step is a key step with the reason ``failure``.
        """
        taken = self.reference, self.context
        if self.reference is not None:
            self._pending_reason = FAILURE
        self._forget()
        return taken

    def remember(
        self,
        reference: Reference,
        signature: Signature,
        reason: str | None,
        context: KeyValueContext | None = None,
    ) -> None:
        """Store what a step that succeeded leaves.

        Args:
            reference: What the method remembers from now on.
            signature: What it depends on.
            reason: Why it was a key step; None when it was none.
            context: Keys and values that go with the reference.
        """
        self.reference = reference
        self.context = context
        self._signature = signature
        if reason is not None:
            self.key_steps[reason] += 1
        self.steps += 1

    def advance(self, signature: Signature) -> None:
        """Count a step that succeeded without storing anything.

        A step of another method or layout ends the life of the reference.
        """
        if self._signature != signature:
            self._forget()
        self._signature = signature
        self.steps += 1

    def _forget(self) -> None:
        self.reference = None
        self.context = None


def make_episode() -> EpisodeState:
    """Return an empty memory whose first key step has the reason ``episode_start``."""
    return EpisodeState()
