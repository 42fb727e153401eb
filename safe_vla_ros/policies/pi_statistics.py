"""How pi0 and pi0.5 bring states and actions to the numbers that the model sees, and back.

Published codes differ in where a small epsilon goes and in the precision; both are kept. Neither
clips.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safe_vla_ros.errors import CheckpointError

IDENTITY, MEAN_STD, QUANTILES = 'IDENTITY', 'MEAN_STD', 'QUANTILES'
RANGES = {'QUANTILES': ('q01', 'q99'), 'QUANTILE10': ('q10', 'q90'), 'MIN_MAX': ('min', 'max')}
"""Statistics that -1 and 1 stand for, by LeRobot's name of the normalisation."""

Vector = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Affine:
    """Normalised = (raw - shift) / scale + offset, number by number.

    Attributes:
        shift: [n].
        scale: [n].
        inverse_scale: What takes the place of ``scale`` on the way back, [n].
        offset: Added after scaling; -1 for ranges.
    """

    shift: Vector
    scale: Vector
    inverse_scale: Vector
    offset: float

    def __len__(self) -> int:
        """Return n."""
        return len(self.shift)

    def normalize(self, values: Vector) -> Vector:
        """Bring raw values [..., n] to the model's, at the precision of the statistics."""
        raw = values.astype(self.shift.dtype)
        result: Vector = (raw - self.shift) / self.scale + self.shift.dtype.type(self.offset)
        return result

    def unnormalize(self, values: Vector) -> Vector:
        """Bring the model's values [..., n] back, at the precision of the statistics."""
        given = values.astype(self.shift.dtype) - self.shift.dtype.type(self.offset)
        result: Vector = given * self.inverse_scale + self.shift
        return result


def lerobot_affine(
    kind: str, statistics: Mapping[str, Vector], count: int, epsilon: float, where: str
) -> Affine:
    """Return LeRobot's normalisation, in float32.

    Args:
        kind: Its name, for example ``QUANTILES``.
        statistics: Vectors by name (``mean``, ``q01`` ...).
        count: n.
        epsilon: Added to a standard deviation on the way in.
        where: File and part, for messages.

    Raises:
        CheckpointError: The kind is unknown, or its statistics are missing or cannot be used.
    """
    one = np.ones(count, dtype=np.float32)
    if kind == IDENTITY:
        return Affine(np.zeros_like(one), one, one, 0.0)
    if kind == MEAN_STD:
        mean, std = (
            _vector(statistics, name, count, where, np.float32) for name in ('mean', 'std')
        )
        _refuse_empty(std == 0.0, where, 'std is 0')
        return Affine(mean, std + np.float32(epsilon), std, 0.0)
    if kind not in RANGES:
        known = ', '.join([IDENTITY, MEAN_STD, *RANGES])
        msg = f'{where}: the normalisation is {kind!r}, known are {known}'
        raise CheckpointError(msg)
    names = RANGES[kind]
    low, high = (_vector(statistics, name, count, where, np.float32) for name in names)
    _refuse_empty(low == high, where, f'{names[0]} and {names[1]} are equal')
    half = (high - low) / np.float32(2.0)
    return Affine(low, half, half, -1.0)


def openpi_affine(
    statistics: Mapping[str, Vector], *, quantiles: bool, count: int, where: str
) -> Affine:
    """Return openpi's normalisation, in float64; 1e-6 is added to both ways.

    Args:
        statistics: Vectors by name.
        quantiles: Whether ``q01`` and ``q99`` are used (pi0.5) or ``mean`` and ``std`` (pi0).
        count: n; statistics may be longer.
        where: File and part, for messages.

    Raises:
        CheckpointError: Statistics are missing or cannot be used.
    """
    names = ('q01', 'q99') if quantiles else ('mean', 'std')
    first, second = (_vector(statistics, name, count, where, np.float64) for name in names)
    if not quantiles:
        _refuse_empty(second == 0.0, where, 'std is 0')
        return Affine(first, second + 1e-6, second + 1e-6, 0.0)
    _refuse_empty(first == second, where, 'q01 and q99 are equal')
    half = (second - first + 1e-6) / 2.0
    return Affine(first, half, half, -1.0)


def _vector(statistics: Mapping[str, Any], name: str, count: int, where: str, dtype: Any) -> Vector:
    if name not in statistics:
        msg = f'{where} has no statistics {name!r}, which the normalisation needs'
        raise CheckpointError(msg)
    try:
        vector: Vector = np.asarray(statistics[name], dtype=dtype)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f'{where}: {name} must be a list of numbers'
        raise CheckpointError(msg) from error
    if vector.shape != (count,):
        msg = f'{where}: {name} has shape {list(vector.shape)}, expected {[count]}'
        raise CheckpointError(msg)
    if not np.isfinite(vector).all():
        index = int(np.flatnonzero(~np.isfinite(vector))[0])
        msg = f'{where}: number {index} of {name} is {vector[index]}; allowed are finite numbers'
        raise CheckpointError(msg)
    return vector


def _refuse_empty(empty: NDArray[np.bool_], where: str, what: str) -> None:
    if empty.any():
        index = int(np.flatnonzero(empty)[0])
        msg = f'{where}: {what} for number {index}, so it cannot be normalised'
        raise CheckpointError(msg)
