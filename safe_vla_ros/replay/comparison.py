"""What pruning does to the actions: each chunk against the unpruned one of the same observation."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Hashable

    from safe_vla_ros.types import ActionChunk, Float64Array, Observation, Policy, PruningSettings

UNPRUNED = 'none'
"""The method that prunes nothing."""

REMEMBERED = 32


@dataclass(frozen=True)
class ActionDifference:
    """Mean difference per action over a whole chunk.

    Attributes:
        position_m: Length of the difference of the displacements, metres.
        rotation_rad: Angle between the rotations, radians.
        gripper: Difference of the openings, 0..1.
        relative: Length of the difference of the displacements as a share of the unpruned chunk's
            path; None where that stands still.
    """

    position_m: float
    rotation_rad: float
    gripper: float
    relative: float | None


def action_difference(chunk: ActionChunk, unpruned: ActionChunk) -> ActionDifference:
    """Compare two chunks of one observation, action by action."""
    apart = np.linalg.norm(chunk.translation_m - unpruned.translation_m, axis=1)
    path_m = float(np.linalg.norm(unpruned.translation_m, axis=1).sum())
    return ActionDifference(
        position_m=float(apart.mean()),
        rotation_rad=float(_angles(chunk.rotation_rad, unpruned.rotation_rad).mean()),
        gripper=float(np.abs(chunk.gripper - unpruned.gripper).mean()),
        relative=float(apart.sum()) / path_m if path_m > 1e-9 else None,
    )


class UnprunedChunks:
    """The unpruned chunk of every recent observation, computed at most once.

    With a fixed latency all methods see the same observations, so that the run of the method
    ``none`` gives them for nothing; with measured latencies they are computed besides.
    """

    def __init__(self, policy: Policy, pruning: PruningSettings) -> None:
        """Take the policy and any pruning settings; their method is replaced by ``none``."""
        self._policy = policy
        self._pruning = replace(pruning, method=UNPRUNED)
        self._chunks: OrderedDict[Hashable, ActionChunk | None] = OrderedDict()

    def remember(self, observation: Observation, chunk: ActionChunk) -> None:
        """Store the unpruned chunk of an observation."""
        self._chunks[_identity(observation)] = chunk
        while len(self._chunks) > REMEMBERED:
            self._chunks.popitem(last=False)

    def get(self, observation: Observation) -> ActionChunk | None:
        """Return the unpruned chunk; None when the policy refuses the observation."""
        key = _identity(observation)
        if key not in self._chunks:
            try:
                memory = self._policy.new_episode()
                chunk = self._policy.infer(observation, memory, self._pruning)
            except Exception:  # Whatever a model raises: the pruned one did answer.
                return None
            self.remember(observation, chunk)
        return self._chunks[key]


def _identity(observation: Observation) -> Hashable:
    proprio = b'' if observation.proprio is None else observation.proprio.tobytes()
    return (tuple(observation.image_headers.items()), observation.instruction, proprio)


def _angles(left: Float64Array, right: Float64Array) -> Float64Array:
    """Return the angle between rotations given as rotation vectors [T, 3], radians [T]."""
    first, second = _quaternions(left), _quaternions(right)
    # The chord between unit quaternions is exact for small angles, where arccos is not.
    chord = np.minimum(
        np.linalg.norm(first - second, axis=1), np.linalg.norm(first + second, axis=1)
    )
    return np.asarray(4 * np.arcsin(np.clip(chord / 2, 0, 1)))


def _quaternions(vectors: Float64Array) -> Float64Array:
    angles = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.hstack([vectors * np.sinc(angles / (2 * np.pi)) / 2, np.cos(angles / 2)])
