"""What the runtime is doing, in one word and one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StateName(str, Enum):
    """A state of the runtime, or of the node while it loads; the value is what messages say."""

    WAITING = 'waiting'
    LOADING = 'loading'
    RUNNING = 'running'
    STARVED = 'starved'
    STALE = 'stale'
    HALTING = 'halting'
    PAUSED = 'paused'
    FAILED = 'failed'

    def __str__(self) -> str:
        """Return the value."""
        return str.__str__(self)


@dataclass(frozen=True)
class RuntimeState:
    """What the runtime is doing and why.

    Attributes:
        name: The state.
        reason: A sentence; empty while running.
    """

    name: StateName
    reason: str
