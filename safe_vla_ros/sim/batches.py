"""Batches for training, normalised, varied and prefetched."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

import numpy as np
import torch

from safe_vla_ros.policies.mini import encode_instruction
from safe_vla_ros.sim.expert_policy import LINEAR_SCALE_M
from safe_vla_ros.sim.losses import Batch
from safe_vla_ros.sim.marks import token_shares
from safe_vla_ros.sim.sentences import draw_phrasing, sentence_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from safe_vla_ros.sim.dataset import Samples

POSITION_SCALE_M = 0.1
LARGEST_SHIFT_PX = 2


class BatchMaker:
    """Makes batches of sample-bowl pairs: pair 2 i + b is sample i asked for bowl b (0 or 1)."""

    def __init__(
        self,
        samples: Samples,
        tokenizer: Tokenizer,
        instruction_length: int,
        sides: Mapping[str, int],
    ) -> None:
        """Take the samples.

        Args:
            samples: What to learn from.
            tokenizer: The policy's.
            instruction_length: Its number of text tokens.
            sides: Visual tokens per axis by camera, in the order of the sequence.
        """
        self._samples = samples
        self._tokenizer = tokenizer
        self._length = instruction_length
        self._sides = dict(sides)
        self._ids: dict[str, list[int]] = {}

    def pairs(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pairs of some samples that are worth learning from, int64 [P]."""
        rows, bowls = np.nonzero(self._samples.valid[samples])
        return samples[rows] * 2 + bowls

    def make(self, pairs: NDArray[np.int64], random: np.random.Generator | None = None) -> Batch:
        """Gather and normalise.

        Args:
            pairs: Which ones, int64 [B].
            random: Draws shifts of the images and the wording of the sentences; None is neither.
        """
        samples, (index, bowl) = self._samples, (pairs // 2, pairs % 2)
        translation = samples.translation[index, bowl] / LINEAR_SCALE_M
        opening = 2.0 * samples.opening[index, bowl, :, None] - 1.0
        points = samples.points[index]
        asked = points[np.arange(len(index)), 1 + bowl]
        relative = np.concatenate([asked - points[:, 0], points[:, 3] - points[:, 0]], axis=1)
        images: dict[str, torch.Tensor] = {}
        things, asked_tokens = [], []
        for camera, (name, side) in enumerate(self._sides.items()):
            pixels: NDArray[np.uint8] = getattr(samples, name)[index]
            marks = samples.marks[index, camera].copy()
            if random is not None:
                shifts = random.integers(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX + 1, (len(index), 2))
                pixels = _shifted(pixels, shifts)
                marks[..., :2] += shifts[:, None] / pixels.shape[-1]
            images[name] = torch.from_numpy(pixels)
            shares = token_shares(marks, side)
            bowls = shares[:, 1:3]
            things.append(np.stack([bowls.max(1), shares[:, 3], shares[:, 0]], axis=2))
            asked_tokens.append(bowls[np.arange(len(index)), bowl])
        return Batch(
            images=images,
            proprio=torch.from_numpy(samples.proprio[index]),
            instruction_ids=self._sentences(samples.scene[index], bowl, random),
            actions=torch.from_numpy(np.concatenate([translation, opening], axis=2)),
            relative=torch.from_numpy(relative / POSITION_SCALE_M),
            things=torch.from_numpy(np.concatenate(things, axis=1)),
            asked=torch.from_numpy(np.concatenate(asked_tokens, axis=1)),
        )

    def stream(self, pairs: NDArray[np.int64], size: int, seed: int, skip: int) -> Iterator[Batch]:
        """Yield batches for ever: epochs of shuffled pairs, made ahead in a thread.

        Args:
            pairs: What to draw from.
            size: Pairs per batch; fewer when there are fewer.
            seed: Seed of order, shifts and wording.
            skip: Batches at the beginning to leave out (a resumed run).
        """
        batches: queue.Queue[Batch] = queue.Queue(maxsize=4)
        size = min(size, len(pairs))

        def fill() -> None:
            count = 0
            random = np.random.default_rng(seed)
            while True:
                order = random.permutation(pairs)
                for start in range(0, len(order) - size + 1, size):
                    count += 1
                    if count > skip:
                        varied = np.random.default_rng((seed, count))
                        batches.put(self.make(np.sort(order[start : start + size]), varied))

        threading.Thread(target=fill, daemon=True).start()
        while True:
            yield batches.get()

    def _sentences(
        self,
        scenes: NDArray[np.int8],
        bowls: NDArray[np.int64],
        random: np.random.Generator | None,
    ) -> torch.Tensor:
        rows = []
        for scene, bowl in zip(scenes.tolist(), bowls.tolist(), strict=True):
            text = sentence_of(scene, bowl)
            text = draw_phrasing(text, random) if random is not None else text
            if text not in self._ids:
                self._ids[text] = encode_instruction(self._tokenizer, text, self._length)
            rows.append(self._ids[text])
        return torch.tensor(rows)


def _shifted(images: NDArray[np.uint8], shifts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Move every image [B, 3, S, S] by columns and rows [B, 2]; edges are repeated."""
    most = LARGEST_SHIFT_PX
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode='edge')
    side = images.shape[-1]
    moved = np.empty_like(images)
    for row, (right, down) in enumerate(shifts):
        top, left = most - down, most - right
        moved[row] = padded[row, :, top : top + side, left : left + side]
    return moved
