"""The seam between a decoder and a pruning method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from safe_vla_ros.pruning.episode import EpisodeState, Signature
from safe_vla_ros.types import PruningSettings


@dataclass(frozen=True)
class StepInput:
    """What a pruner is told before the first layer runs.

    Attributes:
        tokens: Projected visual tokens v_t [N, D]; no batch dimension.
        tokens_per_camera: Their number by camera, in order; sums to N.
        num_layers: L.
        settings: How to prune.
        stamp_s: Time of the observation, seconds.
    """

    tokens: Tensor
    tokens_per_camera: tuple[int, ...]
    num_layers: int
    settings: PruningSettings
    stamp_s: float

    def signature(self, *method: object) -> Signature:
        """Name what a memory made now depends on: the method's own facts and the layout."""
        layout = (self.tokens_per_camera, self.tokens.shape[-1])
        return Signature(method=(self.settings.method, *method), layout=layout)


@dataclass(frozen=True)
class SafeTrace:
    """Intermediate values of one SAFE-Pruner step, for checks against other implementations.

    Attributes:
        layers: Remembered layers, the order of A below.
        match_index: c, int64 [N]; None without a reference.
        match_score: Cosine of the match, float32 [N].
        forecast: Shat, float32 [A, N].
        saliency: S by layer that was read in this step, float32 [N] each.
    """

    layers: tuple[int, ...]
    match_index: Tensor | None
    match_score: Tensor | None
    forecast: Tensor | None
    saliency: dict[int, Tensor]


@dataclass(frozen=True)
class StepReport:
    """What a pruner says about a step that has ended.

    Attributes:
        key_step: Whether the step renewed the memory.
        reason: One of ``types.REFRESH_REASONS`` on a key step, else None.
        similarity: kappa; None without a forecast.
        scores: Score of every visual token, float32 [N]; None when the method has none.
        trace: Intermediate values, where the method offers them.
    """

    key_step: bool = False
    reason: str | None = None
    similarity: float | None = None
    scores: Tensor | None = None
    trace: SafeTrace | None = None


class PrunerStep(Protocol):
    """One pass of the decoder as a pruner follows it; called in the order of the methods."""

    def rows_at(self, layer: int) -> str | None:
        """Query rows (``action`` or ``last``) whose saliency is wanted at a layer; None for none.

        Asked before each layer; after ``select`` has dropped tokens it is not asked any more.
        """
        ...

    def observe(self, layer: int, saliency: Tensor) -> None:
        """Take the saliency of a layer, float32 [N], right after the layer ran.

        Raises:
            NonFiniteError: The saliency decides something now and is not finite.
        """
        ...

    def select(self) -> Tensor | None:
        """Choose before layer K: kept visual indices, ascending int64 [M]; None keeps all."""
        ...

    def finish(self) -> StepReport:
        """End a pass that succeeded: update the episode's memory and report."""
        ...


class Pruner(Protocol):
    """A pruning method; holds nothing between steps."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step; the episode is read here and changed in ``finish`` only.

        Raises:
            ParameterError: The settings do not fit the decoder.
        """
        ...
