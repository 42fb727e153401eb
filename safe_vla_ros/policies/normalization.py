"""Dataset statistics: proprioception into [-1, 1], actions out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.observation_parts import check_finite
from safe_vla_ros.types import BoolArray, Float64Array

Normalization = Literal['bounds', 'bounds_q99']
BOUND_NAMES: dict[str, tuple[str, str]] = {'bounds': ('min', 'max'), 'bounds_q99': ('q01', 'q99')}
_EPSILON = 1e-8


@dataclass(frozen=True)
class Bounds:
    """Bounds of one vector over a dataset.

    Attributes:
        low, high: What -1 and +1 stand for, float64 [n].
        mask: Which dimensions are normalised at all, bool [n].
    """

    low: Float64Array
    high: Float64Array
    mask: BoolArray

    def __len__(self) -> int:
        """Return the number of dimensions."""
        return len(self.low)


def choose_statistics(
    statistics: Mapping[str, Any], unnorm_key: str, where: str
) -> tuple[str, Mapping[str, Any]]:
    """Pick the statistics of one dataset.

    Args:
        statistics: Statistics by dataset name.
        unnorm_key: The wanted name; empty takes the only one there is.
        where: The checkpoint, for messages.

    Returns:
        Name and statistics.

    Raises:
        CheckpointError: The name does not exist, or none was given and there are several.
    """
    names = ', '.join(sorted(statistics))
    if unnorm_key:
        key = unnorm_key if unnorm_key in statistics else f'{unnorm_key}_no_noops'
        if key not in statistics:
            msg = f'unnorm_key is {unnorm_key!r}; {where} has statistics for: {names}'
            raise CheckpointError(msg)
        return key, statistics[key]
    if len(statistics) != 1:
        msg = f'unnorm_key must be set: {where} has statistics for several data sets: {names}'
        raise CheckpointError(msg)
    return next(iter(statistics.items()))


def read_bounds(statistics: Mapping[str, Any], part: str, normalization: str, where: str) -> Bounds:
    """Read the bounds of ``action`` or ``proprio``.

    Args:
        statistics: Statistics of one dataset.
        part: ``action`` or ``proprio``.
        normalization: ``bounds`` (min and max) or ``bounds_q99`` (1 % and 99 % quantiles).
        where: File and dataset, for messages.

    Returns:
        The bounds; without a stored mask every dimension is normalised.

    Raises:
        CheckpointError: A key is missing, or its content is not a vector of matching length.
    """
    entry = statistics.get(part)
    if not isinstance(entry, Mapping):
        msg = f'{where} has no statistics of {part!r}'
        raise CheckpointError(msg)
    vectors = []
    for name in BOUND_NAMES[normalization]:
        if name not in entry:
            msg = f'{where}: {part} has no key {name!r}, which {normalization} normalisation needs'
            raise CheckpointError(msg)
        vectors.append(_vector(entry[name], f'{where}: {part}.{name}'))
    low, high = vectors
    try:
        mask = np.asarray(entry.get('mask', [True] * len(low)))
    except ValueError as error:
        msg = f'{where}: {part}.mask must be a list of true and false'
        raise CheckpointError(msg) from error
    if low.shape != high.shape or mask.shape != low.shape or mask.dtype != np.bool_:
        names = '/'.join(BOUND_NAMES[normalization])
        msg = (
            f'{where}: {part} has {len(low)}/{len(high)} values of {names} and a {mask.dtype} mask '
            f'of {mask.size}; they must be equally many and the mask true/false'
        )
        raise CheckpointError(msg)
    return Bounds(low, high, mask)


def _vector(value: object, where: str) -> Float64Array:
    try:
        vector = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f'{where} must be a list of numbers'
        raise CheckpointError(msg) from error
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        msg = f'{where} must be a list of finite numbers'
        raise CheckpointError(msg)
    return vector


def unnormalize_actions(
    actions: NDArray[np.floating[Any]], bounds: Bounds, epsilon: float = _EPSILON
) -> Float64Array:
    """Bring actions from [-1, 1] to the dataset's range; masked-out dimensions stay.

    Args:
        actions: Normalised actions [T, A].
        bounds: Bounds of the actions.
        epsilon: Added to the range; OpenVLA-OFT uses 1e-8, OpenVLA 0.

    Returns:
        Actions in model units, float64 [T, A].
    """
    values = np.asarray(actions, dtype=np.float64)
    scaled = 0.5 * (values + 1.0) * (bounds.high - bounds.low + epsilon) + bounds.low
    return np.where(bounds.mask, scaled, values)


def normalize_proprio(proprio: Float64Array, bounds: Bounds) -> Float64Array:
    """Bring raw proprioception to [-1, 1], clipped.

    Args:
        proprio: Raw vector, float64 [P].
        bounds: Bounds of the proprioception.

    Returns:
        Normalised vector, float64 [P].

    Raises:
        ObservationError: The length differs, or a value is not finite.
    """
    if proprio.shape != bounds.low.shape:
        msg = f'proprioception has {proprio.size} values; the checkpoint takes {len(bounds)}'
        raise ObservationError(msg)
    check_finite(proprio)
    scaled = 2.0 * (proprio - bounds.low) / (bounds.high - bounds.low + _EPSILON) - 1.0
    return np.where(bounds.mask, np.clip(scaled, -1.0, 1.0), proprio)
