"""Inferences on a clock that is set: bag time and simulated time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.runtime.inference import InferenceOutcome, InferenceReport
    from safe_vla_ros.runtime.policy_runtime import PolicyRuntime


class DelayedInference:
    """Runs one inference at once and hands its chunk over at the time at which it would be there.

    Attributes:
        due_s: Time on the runtime's clock at which the running inference ends; None when none is
            running.
    """

    def __init__(self, runtime: PolicyRuntime) -> None:
        self._runtime = runtime
        self._outcome: InferenceOutcome | None = None
        self.due_s: float | None = None

    def begin(self, now_s: float, latency_s: Callable[[float], float]) -> InferenceOutcome | None:
        """Begin an inference if one is due and none is running.

        Args:
            now_s: The time on the runtime's clock.
            latency_s: Says how long it takes on that clock, given the wall-clock seconds that it
                really took.

        Returns:
            What came out, already now; None when none began.
        """
        if self._outcome is not None:
            return None
        begin_s = time.perf_counter()
        job = self._runtime.begin_inference()
        if job is None:
            return None
        self._outcome = self._runtime.run_inference(job)
        self.due_s = now_s + latency_s(time.perf_counter() - begin_s)
        return self._outcome

    def finish(self) -> InferenceReport | None:
        """End the running inference: play its chunk if it is still worth it; None without one."""
        outcome, self._outcome, self.due_s = self._outcome, None, None
        return None if outcome is None else self._runtime.finish_inference(outcome)
