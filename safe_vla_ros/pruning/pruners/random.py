"""A uniformly random subset: the control that every method is compared with."""

from __future__ import annotations

import torch

from safe_vla_ros.layer_plan import plan_layers
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.episode import EpisodeState
from safe_vla_ros.pruning.pass_plan import PassPlan, Selection
from safe_vla_ros.pruning.pruner import BasicStep, PrunerStep, StepInput, StepReport
from safe_vla_ros.pruning.selection import kept_count


class RandomPruner:
    """Keeps M tokens drawn without replacement.

    A seeded generator advances with every step of an episode. With ``full_pass_share`` that share
    of the steps, drawn from the same generator, is left unpruned.
    """

    def begin(self, step: StepInput, episode: EpisodeState) -> PrunerStep:
        """Draw the subset of this step."""
        plan_layers(step.settings, step.num_layers)
        return _RandomStep(step, episode)


class _RandomStep(BasicStep):
    def __init__(self, step: StepInput, episode: EpisodeState) -> None:
        settings = step.settings
        total = step.layout.total
        generator = torch.Generator()
        self._signature = step.signature(settings.seed)
        if episode.random_state is None or episode.random_seed != settings.seed:
            generator.manual_seed(settings.seed)
        else:
            generator.set_state(episode.random_state)
        full_pass = torch.rand((), generator=generator).item() < settings.full_pass_share
        order = torch.randperm(total, generator=generator)
        count = total if full_pass else kept_count(total, settings.keep_ratio)
        self._kept = order[:count].sort().values.to(step.embeddings.device)
        self._state = generator.get_state()
        self._seed = settings.seed
        self._episode = episode
        self.plan = PassPlan(selections={settings.layer: count} if count < total else {})

    def select(self, layer: int) -> Selection:  # noqa: ARG002
        return Selection(self._kept)

    def finish(self, context: KeyValueContext | None) -> StepReport:  # noqa: ARG002
        self._episode.random_state = self._state
        self._episode.random_seed = self._seed
        self._episode.advance(self._signature)
        return StepReport()
