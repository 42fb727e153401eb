"""Which ROS domain a run takes for itself."""

from __future__ import annotations

import os

FIRST_DOMAIN, DOMAINS = 20, 80
"""ROS domains up to 101 are safe on Linux: above, DDS ports can collide with ephemeral ones."""


def own_domain() -> int:
    """Return a ROS domain for this process, 20..99, so that runs at one time do not meet."""
    return FIRST_DOMAIN + os.getpid() % DOMAINS
