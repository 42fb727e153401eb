"""When the gripper's opening target is published: on a change, and once a second."""

from __future__ import annotations

SMALLEST_CHANGE = 0.02
REPEAT_PERIOD_S = 1.0


class GripperOutput:
    """Remembers what was published last and for how long."""

    def __init__(self) -> None:
        self._published: float | None = None
        self._since_s = 0.0

    def due(self, opening: float | None, elapsed_s: float) -> float | None:
        """Return the opening to publish now, 0 closed .. 1 open, or None.

        Args:
            opening: The target of the action being played, or None when there is none.
            elapsed_s: Time since the last tick, seconds.
        """
        self._since_s += elapsed_s
        if opening is None:
            return None
        opening = min(1.0, max(0.0, opening))
        last = self._published
        changed = last is None or abs(opening - last) > SMALLEST_CHANGE + 1e-9
        if not changed and self._since_s < REPEAT_PERIOD_S - 1e-9:
            return None
        self._published, self._since_s = opening, 0.0
        return opening
