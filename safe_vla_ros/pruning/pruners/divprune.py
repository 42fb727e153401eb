"""DivPrune (arXiv 2503.02175): the tokens that differ most from each other.

Keeps M projected tokens by greedy max-min distance and drops the rest before layer 0, so that no
layer runs in full: ``pruning.layer`` does not apply. It reads no attention and knows no task. The
published code then numbers the kept tokens anew; here they keep their positions, as with every
method.

Memory: none. Cost: L (4nd^2 + 2n^2 d + 3ndm) with the n rows kept; N^2 d for the distances and M
dependent passes over N numbers, which on a GPU cost a few launches each.
"""

from __future__ import annotations

from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.diversity import farthest_tokens
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.forecast import unit_tokens
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count


class DivPrunePruner:
    """Keeps the M most diverse tokens."""

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Start a step that reads nothing."""
        return _DivPruneStep(step, episode)


class _DivPruneStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        total = step.layout.total
        self._count = kept_count(total, step.settings.keep_ratio)
        self._signature = step.signature()
        self._tokens = step.tokens
        self._episode = episode
        self.plan = PassPlan(selections={0: self._count} if self._count < total else {})

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        return Selection(farthest_tokens(unit_tokens(self._tokens), self._count))

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        self._episode.advance(self._signature)
        return StepReport()
