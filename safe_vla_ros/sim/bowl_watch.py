"""Which of LIBERO-Spatial's bowls an arm lifts first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_vla_ros.sim.tasks import BOWLS, SPATIAL

if TYPE_CHECKING:
    from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
    from safe_vla_ros.sim.arm import SimulatedPanda

LIFTED_M = 0.04
"""Height above its start from which on a bowl counts as lifted."""

ASKED, OTHER = 'asked', 'other'


class BowlWatch:
    """Bystander that notes which bowl is lifted first.

    Attributes:
        lifted_first: ``asked`` or ``other``, by what was asked for when it was lifted; None as long
            as both stand, and in suites without two bowls.
    """

    def __init__(self, arm: SimulatedPanda) -> None:
        """Start from an arm that is just reset."""
        bowls = BOWLS if arm.task.suite == SPATIAL else ()
        self._start_m = {bowl: float(arm.scene.position_of(bowl)[2]) for bowl in bowls}
        self.lifted_first: str | None = None

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        """Look at the bowls."""
        del runtime, elapsed_s
        if self.lifted_first is not None:
            return
        for bowl, start_m in self._start_m.items():
            if arm.scene.position_of(bowl)[2] - start_m > LIFTED_M:
                asked = BOWLS[int(arm.task.other_bowl)]
                self.lifted_first = ASKED if bowl == asked else OTHER
