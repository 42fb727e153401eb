"""The memory of an episode whose policy turns noise into actions."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safe_vla_ros.pruning import EpisodeState, make_episode
from safe_vla_ros.pruning.episode import EPISODE_START

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class NoisyEpisode:
    """The pruner's memory and the episode's own noise; satisfies ``types.EpisodeMemory``.

    The noise comes from a generator on the CPU, so that it is the same on every device, and the
    generator starts with the episode, so that the same episode is answered with the same actions.

    Attributes:
        pruning: The pruner's memory.
    """

    def __init__(self, seed: int, draw: Callable[[tuple[int, ...]], Tensor] | None = None) -> None:
        """Start an episode.

        Args:
            seed: Seed of its noise.
            draw: Gives the noise of a shape instead of the generator, for comparing with what
                other code made of known noise.
        """
        self.pruning: EpisodeState = make_episode()
        self._seed = seed
        self._draw = draw
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def reference_stamp_s(self) -> float | None:
        """Observation stamp of the newest key step, seconds; None when the memory is empty."""
        return self.pruning.reference_stamp_s

    def clear(self, reason: str) -> None:
        """Forget the reference; with ``episode_start`` the noise begins again, too.

        Raises:
            ValueError: The reason is not one of ``types.REFRESH_REASONS``.
        """
        self.pruning.clear(reason)
        if reason == EPISODE_START:
            self._generator.manual_seed(self._seed)

    @contextmanager
    def noise(self, *shape: int) -> Iterator[Tensor]:
        """Provide the next noise for as long as the pass that uses it lasts.

        A pass that fails takes nothing: the next one gets the same noise.

        Args:
            *shape: Shape of the noise.

        Yields:
            Standard normal noise, float32, on the CPU.
        """
        before = self._generator.get_state()
        try:
            yield self._next(shape)
        except BaseException:
            self._generator.set_state(before)
            raise

    def _next(self, shape: tuple[int, ...]) -> Tensor:
        if self._draw is not None:
            return self._draw(shape)
        return torch.randn(shape, generator=self._generator, dtype=torch.float32)
