"""What one pass of a decoder will do, known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from safe_vla_ros.types import ACTION_ROWS


@dataclass(frozen=True)
class Tap:
    """What is read of the attention of one layer.

    Attributes:
        rows: Query rows that are asked, one of ``types.TAPPED_ROWS``.
        read: From probabilities float32 [H, R, S'] (R rows asked, S' keys the layer attends to) and
            the columns of the visual keys among them to any float tensor, without a host read.
            None reads the saliency [N]: the mean over heads and rows, 0 for tokens that are no
            longer among the keys.
    """

    rows: str = ACTION_ROWS
    read: Callable[[Tensor, slice], Tensor] | None = None


@dataclass(frozen=True)
class PassPlan:
    """Everything static of a pass: layers, rows, numbers. Nothing here comes from a tensor.

    Attributes:
        taps: What to read, by layer.
        selections: M by layer: before this layer runs the rows of all but M visual tokens leave
            the stream; the layers in ascending order, M descending. Empty on an unpruned pass.
        context: Whether keys and values outlive the step. Tokens whose rows have left the stream
            then stay visible with those stored last; without a context nobody sees them any more.
        moves: Whether stored keys and values are moved to other visual tokens before the first
            layer (``PrunerStep.moved``); needs a context.
        decision: Layer after which ``PrunerStep.decide`` is asked for the rest of the plan; None
            when it is all known before the first layer.
    """

    taps: Mapping[int, Tap] = field(default_factory=dict)
    selections: Mapping[int, int] = field(default_factory=dict)
    context: bool = False
    moves: bool = False
    decision: int | None = None


@dataclass(frozen=True)
class StandIns:
    """Rows that stand for tokens whose own rows leave the stream (merging).

    Attributes:
        weights: Their hidden states as means of the visual rows now in the stream, [P, V]; a row
            of zeros stands for nothing.
        log_counts: Added to every attention score of these keys, float32 [P]: the logarithm of how
            many tokens each stands for; -inf hides a key.
        places: Visual index whose position each takes, int64 [P].
    """

    weights: Tensor
    log_counts: Tensor
    places: Tensor


@dataclass(frozen=True)
class Selection:
    """Whose rows go on.

    Attributes:
        kept: Visual indices 0..N-1, ascending int64 [M]; a subset of those still in the stream.
        stand_ins: More rows, placed behind the kept visual ones; None for none.
    """

    kept: Tensor
    stand_ins: StandIns | None = None
