"""Labelled frames on disk: shards that are whole or absent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.mini import prepare_image
from safe_vla_ros.whole_files import written_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

INPUT_SIZES_PX = {'agentview': 112, 'wrist': 96}
"""Side of the policy's square input by camera, pixels."""


@dataclass(frozen=True)
class Samples:
    """Labelled frames; n of them, each with the expert's plans for either bowl.

    Attributes:
        agentview: uint8 [n, 3, 112, 112].
        wrist: uint8 [n, 3, 96, 96].
        proprio: float32 [n, 8], the layout of ``expert_policy.PROPRIO_LAYOUT``.
        translation: Expert's displacements by asked bowl, float32 [n, 2, 8, 3], metres.
        opening: Expert's gripper openings by asked bowl, float32 [n, 2, 8].
        valid: Whether the plan for a bowl is worth learning, bool [n, 2].
        points: Hand, bowls and plate, float32 [n, 4, 3], metres in the world.
        marks: Where a camera sees them, float32 [n, 2, 4, 3]; see ``object_marks``.
        scene: The benchmark's number of the task, int8 [n].
        seed: Episode's seed, int64 [n].
    """

    agentview: NDArray[Any]
    wrist: NDArray[Any]
    proprio: NDArray[Any]
    translation: NDArray[Any]
    opening: NDArray[Any]
    valid: NDArray[Any]
    points: NDArray[Any]
    marks: NDArray[Any]
    scene: NDArray[Any]
    seed: NDArray[Any]

    def __len__(self) -> int:
        """Return n."""
        return len(self.scene)


class SampleWriter:
    """Gathers samples in memory and writes them as one shard."""

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        """Return the number of samples so far."""
        return len(self._rows)

    def add(self, images: dict[str, NDArray[Any]], *rest: Any) -> None:
        """Add one sample: camera images as rendered, then the other fields of ``Samples``."""
        inputs = [prepare_image(images[name], size) for name, size in INPUT_SIZES_PX.items()]
        self._rows.append((*inputs, *rest))

    def write(self, path: Path) -> None:
        """Write the shard; it appears under its name only when it is whole."""
        columns = list(zip(*self._rows, strict=True))
        arrays: dict[str, Any] = {
            f.name: np.stack(c) for f, c in zip(fields(Samples), columns, strict=True)
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial, partial.open('wb') as file:
            np.savez(file, **arrays)


def load_samples(directories: Iterable[Path]) -> Samples:
    """Load every shard below some directories into memory.

    Raises:
        SafeVlaError: There is none.
    """
    shards = [path for directory in directories for path in sorted(directory.glob('*.npz'))]
    if not shards:
        msg = 'no shards found: run python -m safe_vla_ros.sim.collect first'
        raise SafeVlaError(msg)
    parts: dict[str, list[NDArray[Any]]] = {field.name: [] for field in fields(Samples)}
    for shard in shards:
        with np.load(shard) as arrays:
            for name, part in parts.items():
                part.append(arrays[name])
    return Samples(**{name: np.concatenate(part) for name, part in parts.items()})
