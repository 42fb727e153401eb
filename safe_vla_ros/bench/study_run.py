"""Runs a stage of a study: what is not in the journal yet, on all cores."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from safe_vla_ros.bench.episode_journal import digest_code, digest_policy, episode_key
from safe_vla_ros.bench.study_plan import BLANK, SWAPPED, UNPRUNED, PlanError
from safe_vla_ros.policies import find_policy, read_spec
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.episode_workers import run_warm
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary, run_job, scene_of
from safe_vla_ros.sim.progress_bar import progress_bar
from safe_vla_ros.sim.tasks import other_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

    from safe_vla_ros.bench.episode_journal import EpisodeJournal
    from safe_vla_ros.bench.study_plan import Condition, Plan, Scene, Stage, Variant
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import PolicySpec

LATENCY_STEP = 1_000_003
"""Between the latency seeds of one scene."""

LINE_EVERY_S = 60.0
"""How often progress is written where no terminal shows it."""


@dataclass(frozen=True)
class Cell:
    """One episode of a stage: who, where and how.

    Attributes:
        variant: The variant's label.
        condition: Sentence and disturbance.
        scene: Where.
        job: What runs.
        key: Its name in the journal.
    """

    variant: str
    condition: Condition
    scene: Scene
    job: EpisodeJob
    key: str


@dataclass(frozen=True)
class Budget:
    """What one variant spends, for controls that spend as much.

    Attributes:
        full_pass_share: Full passes among its passes, 0..1.
        macs_per_s: Multiply-accumulates of the decoder per simulated second.
    """

    full_pass_share: float
    macs_per_s: float


@dataclass(frozen=True)
class StageResult:
    """Every episode of a stage.

    Attributes:
        stage: The stage.
        cells: What it consists of.
        episodes: By the cell's key.
        codes: How many episodes ran with which code, by digest.
    """

    stage: Stage
    cells: Sequence[Cell]
    episodes: Mapping[str, EpisodeSummary]
    codes: Mapping[str, int]

    def of(self, variant: str, condition: Condition) -> dict[str, EpisodeSummary]:
        """Return the episodes of a variant under a condition by the scene's name."""
        return {
            cell.scene.name: self.episodes[cell.key]
            for cell in self.cells
            if cell.variant == variant and cell.condition == condition
            if cell.key in self.episodes
        }


class StageRunner:
    """Expands a stage into episodes and runs them."""

    def __init__(self, plan: Plan, journal: EpisodeJournal) -> None:
        """Read the policy.

        Raises:
            CheckpointError: It cannot be read.
        """
        self._plan = plan
        self._journal = journal
        self._spec: PolicySpec = read_spec(plan.policy)
        self._policy = str(find_policy(plan.policy))
        self._digest = digest_policy(plan.policy)
        self._code = digest_code()

    def run(self, stage: Stage, console: Console, *, processes: int) -> StageResult:
        """Run what is missing, then return the whole stage.

        Variants that refer to another one's results run after all others.

        Raises:
            SafeVlaError: Settings are not allowed, or an episode raised an error.
        """
        for wave in _waves(stage):
            cells = self._cells(stage, wave)
            missing = {c.key: c.job for c in cells if self._journal.find(c.key) is None}
            console.print(
                f'{stage.name}: {", ".join(variant.label for variant in wave)}; '
                f'{len(cells)} episodes, {len(missing)} to run'
            )
            if missing:
                self._run(list(missing.values()), console, processes)
        return self.collect(stage)

    def collect(self, stage: Stage) -> StageResult:
        """Return what there is of a stage, without running anything."""
        cells: list[Cell] = []
        with suppress(_NotYetError):
            for wave in _waves(stage):
                cells += self._cells(stage, wave)
        found = {cell.key: self._journal.find(cell.key) for cell in cells}
        episodes = {key: episode for key, episode in found.items() if episode is not None}
        codes: dict[str, int] = {}
        for key in episodes:
            code = self._journal.code_of(key)
            codes[code] = codes.get(code, 0) + 1
        return StageResult(stage, cells, episodes, codes)

    def count(self, stage: Stage) -> tuple[int, int]:
        """Return how many episodes a stage has, and how many of them are held."""
        result = self.collect(stage)
        return len(stage.scenes) * len(stage.variants) * len(stage.conditions), len(result.episodes)

    def _run(self, missing: Sequence[EpisodeJob], console: Console, processes: int) -> None:
        solved = 0
        running = run_warm(missing, run_job, processes=processes, place=scene_of)
        with _Progress(console, len(missing)) as progress:
            for count, (job, episode) in enumerate(running, start=1):
                key = episode_key(job, self._digest)
                self._journal.add(key, episode, code=self._code)
                solved += episode.success
                progress.update(count, f'{100 * solved / count:.0f} % solved')

    def _cells(self, stage: Stage, wave: Iterable[Variant]) -> list[Cell]:
        settings = {variant.label: self._settings(stage, variant) for variant in wave}
        cells = []
        for index, scene in enumerate(stage.scenes):
            for condition in stage.conditions:
                for variant in wave:
                    job = self._job(scene, condition, variant, settings[variant.label])
                    if index < stage.action_error and variant.method != UNPRUNED:
                        job = replace(job, compare=True)
                    key = episode_key(job, self._digest)
                    cells.append(Cell(variant.label, condition, scene, job, key))
        return cells

    def _job(
        self,
        scene: Scene,
        condition: Condition,
        variant: Variant,
        settings: Resolved,
    ) -> EpisodeJob:
        own_seed = scene.seed + (scene.init_state or 0)
        # Own seed per scene: `random` must not repeat one sequence everywhere.
        pruning = replace(settings.pruning, seed=own_seed)
        return EpisodeJob(
            policy=self._policy,
            task=other_task(scene.task) if condition.sentence == SWAPPED else scene.task,
            seed=scene.seed,
            settings=replace(settings, pruning=pruning),
            init_state=scene.init_state,
            latency_seed=own_seed + LATENCY_STEP * variant.latency,
            told='' if condition.sentence == BLANK else None,
            disturbance=condition.disturbance,
        )

    def _settings(self, stage: Stage, variant: Variant) -> Resolved:
        values = {
            **variant.parameters,
            'policy': self._plan.policy,
            'dtype': self._plan.dtype,
            'pruning.method': variant.method,
        }
        if variant.same_macs_as:
            usual = resolve_episode(self._spec, values).control.execute_steps
            values['execute_steps'] = self._rarer(stage, variant, usual)
        settings = resolve_episode(self._spec, values)
        share = variant.full_pass_share
        if variant.same_full_passes_as:
            share = self._budget(stage, variant.same_full_passes_as).full_pass_share
        return replace(settings, pruning=replace(settings.pruning, full_pass_share=share))

    def _rarer(self, stage: Stage, variant: Variant, usual: int) -> int:
        """Return after how many actions an unpruned pass does what the other variant does."""
        unpruned = next((v.label for v in stage.variants if v.method == UNPRUNED), None)
        if unpruned is None:
            raise PlanError(f'{variant.label}: same_macs_as needs the variant {UNPRUNED} beside it')
        full = self._budget(stage, unpruned).macs_per_s
        other = self._budget(stage, variant.same_macs_as).macs_per_s
        return max(1, min(round(usual * full / max(other, 1.0)), self._spec.chunk_size))

    def _budget(self, stage: Stage, label: str) -> Budget:
        """Sum up what a variant has spent in this stage, under all conditions.

        Raises:
            _NotYetError: Some of its episodes are missing.
        """
        cells = self._cells(stage, [stage.variant(label)])
        episodes = [self._journal.find(cell.key) for cell in cells]
        held = [episode for episode in episodes if episode is not None]
        if len(held) < len(cells):
            raise _NotYetError
        passes = sum(episode.inferences for episode in held)
        seconds = sum(episode.duration_s for episode in held)
        return Budget(
            sum(episode.full_passes for episode in held) / max(1, passes),
            sum(episode.decoder_macs for episode in held) / max(seconds, 1e-9),
        )


class _NotYetError(Exception):
    """What a variant waits for has not run."""


class _Progress:
    """A bar with the time left on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._bar = progress_bar(console) if console.is_terminal else None
        self._start_s = self._said_s = time.monotonic()

    def __enter__(self) -> _Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task('episodes', total=self._total, note='')
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, count: int, note: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=count, note=note)
            return
        now_s = time.monotonic()
        if now_s - self._said_s >= LINE_EVERY_S or count == self._total:
            self._said_s = now_s
            left_min = (now_s - self._start_s) / count * (self._total - count) / 60.0
            text = f'{count} of {self._total} episodes, {note}, {left_min:.0f} minutes left'
            self._console.print(text)


def _waves(stage: Stage) -> Iterator[list[Variant]]:
    """Yield the variants that need no other one, then those that do."""
    for waits in (False, True):
        wave = [variant for variant in stage.variants if bool(variant.waits_for) == waits]
        if wave:
            yield wave
