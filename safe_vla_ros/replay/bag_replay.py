"""Replays one bag into a folder of results."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.replay.bag_player import BagPlayer
from safe_vla_ros.replay.bags import Bag
from safe_vla_ros.replay.comparison import UNPRUNED, UnprunedChunks
from safe_vla_ros.replay.method_run import MethodRun
from safe_vla_ros.replay.overlay_bag import OverlayBag, encode_jpeg
from safe_vla_ros.replay.pictures import Filmstrip, Painter
from safe_vla_ros.replay.rows import RowFile, clean, make_row
from safe_vla_ros.replay.section_timer import SectionTimer, TimedPolicy
from safe_vla_ros.replay.topic_routes import find_routes
from safe_vla_ros.runtime.clocks import ManualClock
from safe_vla_ros.runtime.overlay import TokenArea

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from safe_vla_ros.replay.method_run import Step
    from safe_vla_ros.replay.metrics import MetricSums
    from safe_vla_ros.replay.replay_setup import Setup
    from safe_vla_ros.runtime.controller import Command

ROWS, RESULT, OVERLAY, FILMSTRIP = 'steps.jsonl', 'result.json', 'overlay', 'filmstrip'

COMPLETE, INTERRUPTED, DAMAGED, FAILED = 'complete', 'interrupted', 'damaged', 'failed'
"""What became of a bag: played to its end, stopped by the user, broken off, or not played."""


@dataclass(frozen=True)
class BagTask:
    """One bag to replay.

    Attributes:
        index: Place in the list of all bags, from 0.
        path: The bag.
    """

    index: int
    path: Path

    @property
    def key(self) -> str:
        """Name of the bag's folder; unique, and sorted like the list of bags."""
        return f'{self.index:05d}_{self.path.stem}'


def replay_bag(
    task: BagTask, setup: Setup, folder: Path, keep_going: Callable[[float, float], bool]
) -> dict[str, Any]:
    """Replay one bag.

    Args:
        task: The bag.
        setup: Settings and policy.
        folder: Existing, empty folder for the results; ``result.json`` is written last.
        keep_going: Told bag seconds done and in all with every message; False stops.

    Returns:
        What ``result.json`` holds. A bag that cannot be replayed has an error instead of raising.
    """
    result: dict[str, Any] = {
        'index': task.index,
        'bag': str(task.path),
        'key': task.key,
        'status': FAILED,
        'error': None,
        'notes': [],
        'methods': {},
    }
    try:
        with Bag(task.path) as bag:
            _Replay(task, setup, folder, bag).run(result, keep_going)
    except SafeVlaError as error:
        result['error'] = str(error)
    (folder / RESULT).write_text(json.dumps(clean(result), indent=1), encoding='utf-8')
    return result


class _Replay:
    """The parts of one bag's replay, wired together."""

    def __init__(self, task: BagTask, setup: Setup, folder: Path, bag: Bag) -> None:
        self.task = task
        self.setup = setup
        self.folder = folder
        self.bag = bag
        self.start_s, self.end_s = bag.start_s, bag.end_s
        own = setup.own
        self.routes = find_routes(bag.topic_types(), setup.wanted())
        self.stopwatch = SectionTimer()
        self.clock = ManualClock()
        self.painter: Painter | None = None
        if setup.settings.overlays.transport != 'none':
            self.painter = Painter(
                max_width=setup.settings.overlays.max_width,
                max_rate_hz=own.node.saliency_max_rate_hz,
                alpha=own.node.saliency_alpha,
                area=TokenArea.of(own.policy),
            )
        self.strips = {method: Filmstrip(folder / FILMSTRIP, method) for method in setup.resolved}
        self.player = self._make_player()

    def run(self, result: dict[str, Any], keep_going: Callable[[float, float], bool]) -> None:
        """Play the bag and fill in the result, also when the bag breaks off."""
        duration_s = self.end_s - self.start_s
        wanted = {topic: route.msgtype for topic, route in self.routes.by_topic.items()}
        with ExitStack() as stack:
            self.rows = RowFile(self.folder / ROWS)
            stack.callback(self.rows.close)
            self.overlay_bag = OverlayBag(
                self.folder / OVERLAY,
                own_method=next(iter(self.setup.resolved)),
                command_frame=self.setup.own.control.command_frame,
                hardware_id=self.setup.own.node.hardware_id,
            )
            stack.callback(self.overlay_bag.close)
            try:
                ended = self.player.play(
                    self.bag.messages(wanted),
                    lambda time_s: keep_going(time_s - self.start_s, duration_s),
                )
                result['status'] = COMPLETE if ended else INTERRUPTED
            except SafeVlaError as error:
                self.player.finish()
                result['status'] = DAMAGED if self.rows.count else FAILED
                result['error'] = str(error)
            else:
                self.player.finish()
        self._describe(result)
        if result['status'] == FAILED:
            for name in (OVERLAY, FILMSTRIP):
                shutil.rmtree(self.folder / name, ignore_errors=True)

    def on_step(self, step: Step, metrics: MetricSums) -> None:
        """Write an inference everywhere."""
        self.rows.write(make_row(step, metrics, bag=self.task.key, start_s=self.player.start_s))
        self.overlay_bag.write_step(step)
        if self.painter is None:
            return
        overlays = self.painter.draw(step)
        self.strips[step.method].add(step, overlays, start_s=self.player.start_s)
        compressed = self.setup.settings.overlays.transport == 'compressed'
        observation = step.report.outcome.observation
        headers = observation.image_headers if observation else {}
        for camera, overlay in overlays.items():
            self.overlay_bag.write_overlay(
                step,
                camera,
                overlay,
                header=headers[camera],
                jpeg=encode_jpeg(overlay) if compressed else None,
            )

    def on_command(self, method: str, time_s: float, command: Command) -> None:
        """Write a command."""
        self.overlay_bag.write_command(method, time_s, command)

    def _make_player(self) -> BagPlayer:
        policy = TimedPolicy(self.setup.policy, self.stopwatch)
        resolved = self.setup.resolved
        unpruned = None
        if UNPRUNED in resolved and len(resolved) > 1:
            unpruned = UnprunedChunks(policy, resolved[UNPRUNED].pruning)
        period_s = 1.0 / self.setup.own.control.control_rate_hz
        # The unpruned method is served first, so that the others find its chunks.
        methods = sorted(resolved, key=lambda method: method != UNPRUNED)
        runs = [
            MethodRun(
                method,
                self.setup.make_runtime(method, self.clock, policy),
                latency=self.setup.settings.latency,
                unpruned=unpruned,
                period_s=period_s,
                listener=self,
            )
            for method in methods
        ]
        return BagPlayer(
            self.routes,
            self.clock,
            runs,
            period_s=period_s,
            time_source=self.setup.settings.clock,
            stopwatch=self.stopwatch,
        )

    def _describe(self, result: dict[str, Any]) -> None:
        player, seconds = self.player, self.stopwatch.seconds
        runs = {run.method: run for run in player.runs}
        result |= {
            'notes': [*self.routes.notes, *player.notes],
            'start_s': player.start_s,
            'duration_s': self.end_s - self.start_s,
            'played_s': player.played_s if player.messages else 0.0,
            'topics': [asdict(route) for route in self.routes.by_topic.values()],
            'skipped': dict(sorted(player.skipped.items())),
            'messages': player.messages,
            'rows': self.rows.count,
            'methods': {
                method: {
                    'metrics': runs[method].metrics.to_json(),
                    'state_changes': [
                        {**asdict(change), 'time_s': change.time_s - player.start_s}
                        for change in runs[method].changes
                    ],
                    'filmstrip': self.strips[method].to_json(),
                }
                for method in self.setup.resolved
            },
            'wall_clock': {
                'messages_s': seconds['messages'],
                'ticks_s': seconds['ticks'],
                'inferences_s': seconds['inferences'],
                'model_s': seconds['model'],
            },
        }
