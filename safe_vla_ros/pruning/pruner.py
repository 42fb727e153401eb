"""The seam between a decoder and a pruning method.

A method is a plan, which is static, and a few pure tensor functions. The decoder asks in this
order: ``begin`` (memory and visual tokens are known), then before and after each layer what the
plan says, then ``finish``. In ``begin`` and ``decide`` a method may read a number back from the
device to choose its plan; in ``observe`` and ``select`` it may not, and shapes follow from the plan
alone (no boolean masks, no ``nonzero``), so that what lies between can be one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState, Signature
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection
from safe_vla_ros.pruning.sequence import SequenceLayout
from safe_vla_ros.types import TEXT_ROWS, PruningSettings


@dataclass(frozen=True)
class StepInput:
    """What a pruner is told before the first layer runs.

    Attributes:
        embeddings: The whole input sequence [S, D]; no batch dimension.
        layout: Where everything stands in it.
        num_layers: L.
        settings: How to prune.
        stamp_s: Time of the observation, seconds.
        patches: Returns the pixels under each visual token, float [N, P], made only when asked;
            None where the policy has no such thing.
    """

    embeddings: Tensor
    layout: SequenceLayout
    num_layers: int
    settings: PruningSettings
    stamp_s: float
    patches: Callable[[], Tensor] | None = None

    @property
    def tokens(self) -> Tensor:
        """Projected visual tokens v_t [N, D]."""
        return self.embeddings[self.layout.visual]

    @property
    def text(self) -> Tensor:
        """Embeddings [T, D] of the rows ``text``."""
        return self.embeddings[self.layout.rows(TEXT_ROWS)]

    def signature(self, *method: object) -> Signature:
        """Name what a memory made now depends on: the method's own facts and the layout."""
        return Signature(
            method=(self.settings.method, *method),
            layout=(
                self.layout.visual.start,
                self.layout.tokens_per_camera,
                self.embeddings.shape[-1],
            ),
        )


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
        residual: Share of what the step would have left stale, 0..1; None without a context.
        scores: Score of every visual token, float32 [N]; None when the method has none.
        ages: Steps since each visual token was computed, float32 [N], 0 for those of this step;
            None when a token that is not computed is not seen either.
        trace: Intermediate values, where the method offers them.
    """

    key_step: bool = False
    reason: str | None = None
    similarity: float | None = None
    residual: float | None = None
    scores: Tensor | None = None
    ages: Tensor | None = None
    trace: SafeTrace | None = None


class PrunerStep(Protocol):
    """One pass of the decoder as a pruner follows it."""

    @property
    def plan(self) -> PassPlan:
        """What the pass will do; on return from ``begin`` and, changed, from ``decide``."""
        ...

    @property
    def context(self) -> KeyValueContext | None:
        """The stored keys and values, taken out of the memory; None makes the decoder make room.

        Asked only when the plan has a context. Without stored ones the plan selects nothing.
        """
        ...

    def moved(self) -> Tensor:
        """Say whose stored keys and values each visual token starts from: index int64 [N].

        Asked before the first layer when ``plan.moves``; reads nothing back.
        """
        ...

    def observe(self, layer: int, answer: Tensor) -> None:
        """Take what a tap read, float32 [N] unless it has a ``read`` of its own.

        Called right after the layer, or before ``finish`` when another module runs the rows asked.
        Reads nothing back.
        """
        ...

    def decide(self) -> PassPlan:
        """Choose the rest of the plan after layer ``plan.decision``; may read a number back.

        Taps and selections of the layers that have run are over; ``context`` stays as it was.

        Raises:
            NonFiniteError: What decides is not finite.
        """
        ...

    def select(self, layer: int) -> Selection:
        """Choose whose rows go on before a layer of ``plan.selections``; reads nothing back."""
        ...

    def finish(self, context: KeyValueContext | None) -> StepReport:
        """End a pass that succeeded: update the episode's memory and report.

        Args:
            context: Keys and values as the pass has left them; None without one in the plan.
        """
        ...


class Pruner(Protocol):
    """A pruning method; holds nothing between steps."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step.

        The episode is read here and changed in ``finish`` only, but for a context, which is taken
        out (``EpisodeState.take``) so that a pass that fails leaves none.

        Raises:
            NonFiniteError: What decides is not finite.
            ParameterError: The settings do not fit the decoder.
        """
        ...


class BasicStep:
    """What most steps share: a plan that never changes, no context, nothing read.

    Attributes:
        plan: The plan.
        context: None.
    """

    plan = PassPlan()
    context: KeyValueContext | None = None

    def moved(self) -> Tensor:
        """The plan moves nothing."""
        raise NotImplementedError('nothing is moved')

    def observe(self, layer: int, answer: Tensor) -> None:
        """Nothing is read."""

    def decide(self) -> PassPlan:
        """The plan has no decision."""
        return self.plan

    def select(self, layer: int) -> Selection:
        """The plan has no selection."""
        raise NotImplementedError(f'layer {layer} selects nothing')
