"""What pruning did over many passes, added up: for node, replay, episodes and demo."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from safe_vla_ros.types import PruningRecord


class PrunedPass(NamedTuple):
    """The numbers of one pass that add up.

    Attributes:
        tokens_kept, tokens_total: Visual tokens of all cameras: computed in every layer, and all.
        reason: Why the method's memory was renewed; None when the pass is no key step.
        similarity: kappa; None without a forecast.
        decoder_macs, decoder_macs_full: Multiply-accumulates, and the same had nothing been pruned.
    """

    tokens_kept: int
    tokens_total: int
    reason: str | None
    similarity: float | None
    decoder_macs: int
    decoder_macs_full: int

    @property
    def pruning_ratio(self) -> float:
        """Fraction of the visual tokens not computed."""
        return 1.0 - self.tokens_kept / self.tokens_total if self.tokens_total else 0.0

    @classmethod
    def of(cls, record: PruningRecord) -> PrunedPass:
        """Take the numbers of a record."""
        return cls(
            sum(record.kept.values()),
            sum(record.total.values()),
            str(record.reason) if record.key_step else None,
            record.similarity,
            record.decoder_macs,
            record.decoder_macs_full,
        )


class PruningTotals:
    """Sums over passes; needs no more room for more of them.

    Attributes:
        passes: Passes.
        full_passes: Passes that computed every visual token.
        tokens_kept, tokens_total: Visual tokens computed in every layer, and all.
        reasons: Key steps by reason.
        decoder_macs, decoder_macs_full: Multiply-accumulates.
    """

    def __init__(self, passes: Iterable[PrunedPass] = ()) -> None:
        self.passes = 0
        self.full_passes = 0
        self.tokens_kept = 0
        self.tokens_total = 0
        self.reasons: Counter[str] = Counter()
        self.decoder_macs = 0
        self.decoder_macs_full = 0
        for one in passes:
            self.add(one)

    def add(self, one: PrunedPass) -> None:
        """Add one pass."""
        self.passes += 1
        self.full_passes += one.tokens_kept == one.tokens_total
        self.tokens_kept += one.tokens_kept
        self.tokens_total += one.tokens_total
        self.decoder_macs += one.decoder_macs
        self.decoder_macs_full += one.decoder_macs_full
        if one.reason is not None:
            self.reasons[one.reason] += 1

    @property
    def key_steps(self) -> int:
        """Passes that renewed the method's memory."""
        return sum(self.reasons.values())

    @property
    def key_step_share(self) -> float | None:
        """Share of the passes that were key steps; None without a pass."""
        return self.key_steps / self.passes if self.passes else None

    @property
    def kept_share(self) -> float | None:
        """Share of the visual tokens computed over all passes; None without a token."""
        return self.tokens_kept / self.tokens_total if self.tokens_total else None
