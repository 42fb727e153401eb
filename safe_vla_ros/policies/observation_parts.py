"""What policies take from an observation, with one sentence for what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safe_vla_ros.types import Float64Array, Observation, UInt8Array


def camera_images(observation: Observation, cameras: Iterable[str]) -> list[UInt8Array]:
    """Return the images of some cameras, uint8 [H, W, 3] each, in their order.

    Raises:
        ObservationError: The observation lacks one.
    """
    names = list(cameras)
    missing = [name for name in names if name not in observation.images]
    if missing:
        got = ', '.join(observation.images) or 'none'
        msg = f'the observation lacks the cameras {", ".join(missing)}; it has {got}'
        raise ObservationError(msg)
    return [observation.images[name] for name in names]


def proprio_vector(observation: Observation, count: int) -> Float64Array:
    """Return the proprioception, float64 [count]; its values are not looked at.

    Raises:
        ObservationError: There is none, or it has another length.
    """
    proprio = observation.proprio
    if proprio is None or proprio.shape != (count,):
        got = 'none' if proprio is None else list(proprio.shape)
        msg = f'the policy takes {count} numbers of proprioception, got {got}'
        raise ObservationError(msg)
    return proprio


def check_finite(proprio: Float64Array) -> None:
    """Refuse a proprioception that holds NaN or infinity.

    Raises:
        ObservationError: It does.
    """
    finite = np.isfinite(proprio)
    if not finite.all():
        msg = f'proprioception holds {proprio[~finite][0]}; allowed are finite values'
        raise ObservationError(msg)
