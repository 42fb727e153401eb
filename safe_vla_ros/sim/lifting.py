"""Which of LIBERO-Spatial's two bowls is lifted first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safe_vla_ros.sim.arm import SimulatedPanda
    from safe_vla_ros.sim.rollout import Frame
    from safe_vla_ros.types import Float64Array

LIFTED_M = 0.04
"""Height above where it stood from which on a bowl counts as lifted."""

ASKED, OTHER = 'asked', 'other'


class LiftWatch:
    """Watches the frames of one episode; see ``rollout.FrameListener``.

    Attributes:
        first: The bowl that was lifted first, ``ASKED`` or ``OTHER``; None as long as none was.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self._stood_m: tuple[float, float] | None = None

    def __call__(self, arm: SimulatedPanda, frame: Frame, proprio: Float64Array) -> None:
        """Compare the bowls' heights with those in the first frame."""
        del arm, proprio
        table = frame.state
        if table is None or self.first is not None:
            return
        heights = (float(table.bowl[2]), float(table.other_bowl[2]))
        if self._stood_m is None:
            self._stood_m = heights
        for name, now_m, stood_m in zip((ASKED, OTHER), heights, self._stood_m, strict=True):
            if now_m - stood_m > LIFTED_M:
                self.first = name
                return
