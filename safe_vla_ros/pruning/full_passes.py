"""Full passes that come round whatever the images show: a control for key steps."""

from __future__ import annotations


def is_full_pass(step: int, share: float) -> bool:
    """Tell whether a step is one of the full passes that are spread evenly over the episode.

    Args:
        step: Which step of the episode it is, from 0.
        share: Share of the steps that run in full, 0..1.
    """
    return int((step + 1) * share) > int(step * share)
