"""One pruning method on one bag: the runtime, its inferences in bag time, and what was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from safe_vla_ros.replay.command_metrics import Agreement, Smoothness
from safe_vla_ros.replay.comparison import UNPRUNED, ActionDifference, action_difference
from safe_vla_ros.replay.metrics import MetricSums
from safe_vla_ros.runtime.delayed_inference import DelayedInference
from safe_vla_ros.runtime.pruning_totals import PrunedPass, PruningTotals

if TYPE_CHECKING:
    from safe_vla_ros.replay.comparison import UnprunedChunks
    from safe_vla_ros.replay.latency import LatencyModel
    from safe_vla_ros.runtime.controller import Command
    from safe_vla_ros.runtime.inference import InferenceOutcome, InferenceReport
    from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
    from safe_vla_ros.runtime.states import StateName

MOST_STATE_CHANGES = 200


@dataclass(frozen=True)
class Step:
    """One inference that ended.

    Attributes:
        method: Name of the method.
        begin_s: Bag time at which it began.
        end_s: Bag time at which its chunk was there.
        report: What became of it.
        difference: To the unpruned chunk of the same observation; None where nobody asked.
    """

    method: str
    begin_s: float
    end_s: float
    report: InferenceReport
    difference: ActionDifference | None


@dataclass(frozen=True)
class StateChange:
    """The runtime's state became another one, at a bag time, for a reason."""

    time_s: float
    name: StateName
    reason: str


class MethodListener(Protocol):
    """Who is told what a method does."""

    def on_step(self, step: Step, metrics: MetricSums) -> None:
        """An inference ended; ``metrics`` holds the commands since the one before it."""

    def on_command(self, method: str, time_s: float, command: Command) -> None:
        """A command was due."""


class MethodRun:
    """Drives one runtime with the bag's clock.

    Attributes:
        method: Name of the method.
        runtime: The runtime.
        metrics: What was measured.
        agreement: Recorded commands to compare with.
        changes: The first state changes.
    """

    def __init__(
        self,
        method: str,
        runtime: PolicyRuntime,
        *,
        latency: LatencyModel,
        unpruned: UnprunedChunks | None,
        period_s: float,
        listener: MethodListener,
    ) -> None:
        self.method = method
        self.runtime = runtime
        self.metrics = MetricSums()
        self.agreement = Agreement()
        self.changes: list[StateChange] = []
        self._latency = latency
        self._unpruned = unpruned
        self._period_s = period_s
        self._listener = listener
        self._smoothness = Smoothness(period_s)
        self._between = MetricSums()
        self._totals = PruningTotals()
        self._inference = DelayedInference(runtime)
        self._begin_s = 0.0
        self._difference: ActionDifference | None = None

    @property
    def due_s(self) -> float | None:
        """Bag time at which the running inference ends; None when none is running."""
        return self._inference.due_s

    def wake(self, now_s: float) -> None:
        """Begin an inference if one is due and none is running."""
        outcome = self._inference.begin(now_s, self._latency.latency_s)
        if outcome is not None:
            self._begin_s, self._difference = now_s, self._compare(outcome)

    def complete(self, now_s: float) -> None:
        """End the running inference: play its chunk if it is still worth it."""
        report = self._inference.finish()
        if report is None:
            return
        step = Step(self.method, self._begin_s, now_s, report, self._difference)
        self._count(step)
        between, self._between = self._between, MetricSums()
        self._listener.on_step(step, between)
        self.metrics.merge(between)

    def tick(self, now_s: float) -> None:
        """Let one control tick happen."""
        command = self.runtime.tick()
        self._smoothness.add(command, self.metrics)
        self.agreement.compare(now_s, command, self._between)
        if command is not None:
            self._listener.on_command(self.method, now_s, command)
        state = self.runtime.state
        self.metrics.count(f'state_s/{state.name}', self._period_s)
        if not self.changes or self.changes[-1].name is not state.name:
            self.metrics.count('state_changes')
            if len(self.changes) < MOST_STATE_CHANGES:
                self.changes.append(StateChange(now_s, state.name, state.reason))

    def close(self) -> None:
        """Take in what is counted at the end of the bag."""
        self.metrics.merge(self._between)
        self._between = MetricSums()
        self._count_pruning()
        statistics = self.runtime.statistics()
        for name in (
            'played_ticks',
            'starved_ticks',
            'speed_clipped_ticks',
            'acceleration_clipped_ticks',
            'workspace_clipped_ticks',
            'lead_clipped_ticks',
        ):
            self.metrics.count(name, getattr(statistics, name))
        for kind, number in statistics.halts.items():
            self.metrics.count(f'halts/{kind}', number)

    def _count_pruning(self) -> None:
        totals = self._totals
        if not totals.passes:
            return
        for name in ('tokens_total', 'tokens_kept', 'decoder_macs', 'decoder_macs_full'):
            self.metrics.count(name, getattr(totals, name))
        for reason, number in totals.reasons.items():
            self.metrics.count('key_steps', number)
            self.metrics.count(f'key_steps/{reason}', number)

    def _compare(self, outcome: InferenceOutcome) -> ActionDifference | None:
        observation, chunk = outcome.observation, outcome.chunk
        if self._unpruned is None or observation is None or chunk is None:
            return None
        if self.method == UNPRUNED:
            self._unpruned.remember(observation, chunk)
            return None
        unpruned = self._unpruned.get(observation)
        return None if unpruned is None else action_difference(chunk, unpruned)

    def _count(self, step: Step) -> None:
        metrics, report = self.metrics, step.report
        metrics.count('inferences')
        metrics.count('accepted' if report.accepted else 'not_accepted')
        if report.outcome.error:
            metrics.count('errors')
        metrics.add('latency_ms', 1000 * report.latency_s)
        metrics.add('observation_age_s', report.observation_age_s)
        if report.accepted:
            metrics.add('skipped_actions', report.seam.skipped_actions)
        metrics.add('seam_jump_m_s', report.seam.jump_m_s)
        metrics.add('seam_jump_rad_s', report.seam.jump_rad_s)
        if step.difference is not None:
            for name, value in asdict(step.difference).items():
                metrics.add(f'difference/{name}', value)
        record = report.outcome.record
        if record is None:
            return
        self._totals.add(PrunedPass.of(record))
        metrics.add('pruning_ratio', record.pruning_ratio)
        metrics.add('similarity', record.similarity)
        for stage, milliseconds in record.stage_ms.items():
            metrics.add(f'stage_ms/{stage}', milliseconds)
