"""How long an inference takes in a replay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safe_vla_ros.replay.errors import ReplayError

MEASURED = 'measured'


@dataclass(frozen=True)
class LatencyModel:
    """Time from the begin of an inference until its chunk is there.

    Attributes:
        fixed_s: Always this long, seconds, so that the result does not depend on the machine; None
            takes what the inference took.
    """

    fixed_s: float | None

    @classmethod
    def parse(cls, text: str) -> LatencyModel:
        """Read ``measured`` or a number of milliseconds.

        Raises:
            ReplayError: Neither.
        """
        if text == MEASURED:
            return cls(None)
        try:
            milliseconds = float(text)
        except ValueError:
            milliseconds = math.nan
        if not 0 <= milliseconds <= 60_000:
            msg = f'--latency got {text!r}; allowed is {MEASURED} or milliseconds, 0..60000'
            raise ReplayError(msg)
        return cls(milliseconds / 1000)

    def __str__(self) -> str:
        return MEASURED if self.fixed_s is None else f'{self.fixed_s * 1000:g} ms'

    def latency_s(self, measured_s: float) -> float:
        """Return the latency of an inference that took ``measured_s`` seconds."""
        return measured_s if self.fixed_s is None else self.fixed_s
