"""Batches for training, normalised and prefetched."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import numpy as np
import torch

from safe_vla_ros.policies.mini import encode_instruction
from safe_vla_ros.sim.expert_policy import LINEAR_SCALE_M
from safe_vla_ros.sim.losses import Batch
from safe_vla_ros.sim.tasks import TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from safe_vla_ros.sim.dataset import Samples

HIDDEN_STATE_SCALE_M = 0.1
_HIDDEN_STATE_CENTRE_M = np.array([0.0, 0.7, 0.1, 0.0, 0.7, 0.1], dtype=np.float32)


class BatchMaker:
    """Makes batches of samples by index."""

    def __init__(self, samples: Samples, tokenizer: Tokenizer, instruction_length: int) -> None:
        self._samples = samples
        ids = [
            encode_instruction(tokenizer, t.sentence, instruction_length) for t in TASKS.values()
        ]
        self._ids = torch.tensor(ids)

    def make(self, indices: NDArray[np.int64]) -> Batch:
        """Gather and normalise; indices int64 [B]."""
        samples = self._samples
        translation = samples.translation[indices] / LINEAR_SCALE_M
        opening = 2.0 * samples.opening[indices, :, None] - 1.0
        hidden = (samples.hidden[indices] - _HIDDEN_STATE_CENTRE_M) / HIDDEN_STATE_SCALE_M
        return Batch(
            corner=torch.from_numpy(samples.corner[indices]),
            gripper=torch.from_numpy(samples.gripper[indices]),
            proprio=torch.from_numpy(samples.proprio[indices]),
            instruction_ids=self._ids[samples.task[indices].astype(np.int64)],
            actions=torch.from_numpy(np.concatenate([translation, opening], axis=2)),
            hidden_state=torch.from_numpy(hidden),
        )

    def stream(
        self, indices: NDArray[np.int64], size: int, seed: int, skip: int
    ) -> Iterator[Batch]:
        """Yield batches for ever: epochs of shuffled indices, made ahead in a thread.

        Args:
            indices: Samples to draw from.
            size: Samples per batch; fewer when there are fewer.
            seed: Seed of the order.
            skip: Batches at the beginning to leave out (a resumed run).
        """
        batches: queue.Queue[Batch] = queue.Queue(maxsize=4)
        size = min(size, len(indices))

        def fill() -> None:
            count = 0
            random = np.random.default_rng(seed)
            while True:
                order = random.permutation(indices)
                for start in range(0, len(order) - size + 1, size):
                    count += 1
                    if count > skip:
                        batches.put(self.make(np.sort(order[start : start + size])))

        threading.Thread(target=fill, daemon=True).start()
        while True:
            yield batches.get()
