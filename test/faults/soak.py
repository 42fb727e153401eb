"""Run the node with the bundled policy for a long time under everything that may happen to it.

The node is a process of its own; a robot without a simulator feeds it over DDS. Tasks, lost inputs,
pauses, parameters, transitions and stalls come at random. At the end memory must not have grown,
threads and open files must be as many as before, every command must have kept the rules of
command_rules.py, and the node must have answered and said `running` after every event.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / 'test' / name) for name in ('ros', 'faults'))]

import torch
from command_rules import CommandRecorder, Rules
from node_bench import DOMAIN
from soak_events import EVENTS, SPEEDS_M_S, Soaked
from soak_report import Sample, checks, draw, growth, medians
from soak_robot import NAMESPACE, SoakRobot

from safe_vla_ros.bench.machine import describe_machine
from safe_vla_ros.demo.processes import Child, ChildError

PARAMETERS = ROOT / 'config' / 'mini_libero.yaml'
LIMITS = {'max_angular_speed': 0.8, 'max_linear_accel': 2.0, 'max_angular_accel': 3.0}
RULES = Rules(max_linear_speed=max(SPEEDS_M_S), **LIMITS)
"""The loosest limits that hold in the soak."""

WIDE = {'workspace_min': [-1000.0] * 3, 'workspace_max': [1000.0] * 3}
"""A face of the box may stop the arm faster than the limits allow, so the arm meets none."""

SAMPLE_PERIOD_S = 1.0
PROGRESS_PERIOD_S = 10.0
TOLD_VIOLATIONS = 10
VERDICTS = {True: 'passed', False: 'FAILED', None: 'not judged, the soak was too short'}
WARM_UP_RECONFIGURES = 3
WARM_UP_SHARE = 0.25
"""The first loads fill caches and pools, and the allocators find their size in the first minutes:
memory counts only after both."""


@dataclass(frozen=True)
class Options:
    """What the soak shall do.

    Attributes:
        duration_s: Events begin until then.
        seed: Of everything that is random.
        out: Folder for the report, the picture and the node's log.
    """

    duration_s: float
    seed: int
    out: Path


class Watch:
    """Samples the node's process again and again, in a thread."""

    def __init__(self, child: Child, robot: SoakRobot) -> None:
        self.samples: list[Sample] = []
        self.events: list[tuple[float, str]] = []
        self._process = Path('/proc') / str(child.pid)
        self._robot = robot
        self._begin_s = time.monotonic()
        self._lock = threading.Lock()
        self.close = robot.every(SAMPLE_PERIOD_S, self.take)

    @property
    def now_s(self) -> float:
        """Time since the begin, seconds."""
        return time.monotonic() - self._begin_s

    def take(self, *, settled: bool = False) -> None:
        """Take one sample.

        Args:
            settled: Whether the node is active and says `running`.
        """
        with self._lock, contextlib.suppress(OSError):
            pages = int((self._process / 'statm').read_text(encoding='ascii').split()[1])
            sample = Sample(
                time_s=self.now_s,
                resident_mib=pages * os.sysconf('SC_PAGE_SIZE') / 2**20,
                threads=len(list((self._process / 'task').iterdir())),
                files=len(list((self._process / 'fd').iterdir())),
                speed_m_s=self._robot.new_speed(),
                settled=settled,
            )
            self.samples.append(sample)

    def tell(self) -> None:
        """Print a line of progress."""
        last = self.samples[-1]
        commands = len(self._robot.recorder.heard)
        print(
            f'{last.time_s:6.0f} s  {last.resident_mib:6.1f} MiB  {last.threads} threads  '
            f'{last.files} files  {len(self.events)} events  {commands} commands',
            flush=True,
        )


def run(options: Options) -> dict[str, object]:
    """Soak the node; return the report."""
    options.out.mkdir(parents=True, exist_ok=True)
    recorder = CommandRecorder(RULES)
    parameters = [f'{name}:={value}' for name, value in (LIMITS | WIDE).items()]
    child = Child(
        'pruned_policy',
        'safe_vla_ros.ros.pruned_policy',
        [
            *('--ros-args', '-r', f'__ns:={NAMESPACE}', '--params-file', str(PARAMETERS)),
            *(part for text in parameters for part in ('-p', text)),
        ],
        log=options.out / 'node.log',
        environment={'ROS_DOMAIN_ID': str(DOMAIN), 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'},
    )
    robot = SoakRobot(recorder, options.seed)
    with child:
        watch = Watch(child, robot)
        try:
            states, slowest_s, unanswered = soak(options, child, robot, watch)
        finally:
            watch.close()
            ticks = robot.last_values('control')
            robot.close()
    reconfigured_s = [time_s for time_s, name in watch.events if name == 'reconfigure']
    warm_s = ([0.0, *reconfigured_s])[min(WARM_UP_RECONFIGURES, len(reconfigured_s))]
    warm_s = max(warm_s, WARM_UP_SHARE * options.duration_s)
    settled = [s for s in watch.samples if s.settled and s.time_s > warm_s]
    from_start = [s.resident_mib for s in watch.samples if s.settled]
    violations = recorder.violations(ends_at_rest=not unanswered)
    report = {
        'command': f'make soak ARGS="--minutes {options.duration_s / 60:g} --seed {options.seed}"',
        'machine': describe_machine(torch.device('cpu')),
        'duration_s': round(watch.now_s, 1),
        'seed': options.seed,
        'events': dict(Counter(name for _, name in watch.events)),
        'states_told': dict(states),
        'commands': len(recorder.heard),
        'largest': asdict(recorder.largest()),
        'slowest_event_s': round(slowest_s, 2),
        'control_since_last_activation': ticks,
        'warm_up_s': round(warm_s, 1),
        'settled_samples': len(settled),
        'memory_growth': growth(settled),
        'resident_mib_per_tenth': medians(from_start),
        'resident_mib': [round(sample.resident_mib, 1) for sample in settled],
        'threads': sorted({sample.threads for sample in settled}),
        'files': sorted({sample.files for sample in settled}),
        'violations': violations,
        'unanswered': unanswered,
        'checks': checks(settled, violations, unanswered),
    }
    draw(options.out / 'soak.png', watch.samples, watch.events)
    text = json.dumps(report, indent=1)
    (options.out / 'soak.json').write_text(text + '\n', encoding='utf-8')
    return report


def soak(
    options: Options, child: Child, robot: SoakRobot, watch: Watch
) -> tuple[Counter[str], float, str]:
    """Let things happen until the time is over or the node fails.

    Returns:
        How often each state was told, how long the slowest event took, and what the node did not
        do.
    """
    soaked = Soaked(robot, Random(options.seed), child.pid)
    states: Counter[str] = Counter()
    names, weights = zip(*EVENTS.items(), strict=True)
    slowest_s, told_s, event = 0.0, 0.0, Soaked.begin
    try:
        while True:
            began_s = watch.now_s
            watch.events.append((began_s, event.__name__))
            event(soaked)
            soaked.settle()
            slowest_s = max(slowest_s, watch.now_s - began_s)
            child.check()
            watch.take(settled=True)
            states.update(robot.states()[:-1])
            robot.keep_last()
            if watch.now_s - told_s > PROGRESS_PERIOD_S:
                told_s = watch.now_s
                watch.tell()
            if watch.now_s > options.duration_s:
                break
            event = soaked.random.choices(names, weights)[0]
        soaked.end()
    except (AssertionError, ChildError) as error:
        return states, slowest_s, f'{event.__name__} at {watch.now_s:.1f} s: {error}'
    return states, slowest_s, ''


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns 1 when a check failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add('--minutes', type=float, default=20.0, help='how long (20)')
    add('--seed', type=int, default=1, help='of everything that is random (1)')
    add('--out', type=Path, default=Path('out/soak'), help='folder for what it writes (out/soak)')
    given = parser.parse_args(arguments)
    report = run(Options(60.0 * given.minutes, given.seed, given.out))
    for violation in report['violations'][:TOLD_VIOLATIONS]:
        print(violation)
    if report['unanswered']:
        print(report['unanswered'])
    growth_told = report['memory_growth']
    if growth_told is not None:
        print(f'memory grew by {100 * growth_told:.2f} %')
    for name, passed in report['checks'].items():
        print(f'{name}: {VERDICTS[passed]}')
    print(f'report and picture: {given.out}')
    return 1 if False in report['checks'].values() else 0


if __name__ == '__main__':
    sys.exit(main())
