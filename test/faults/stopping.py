"""Measure time and path from each cause to rest, on a node in a process of its own, over DDS.

The node has its default settings and a fake policy that always wants more speed than is allowed.
The robot is a model: it goes at the speed of the newest command at once. Each run is judged twice:
with a watchdog that stops the robot when commands stop, and without one.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / 'test' / name) for name in ('ros', 'faults'))]

import torch
from arm_motion import Stop, stop_after
from command_rules import Heard
from geometry_msgs.msg import TwistStamped
from node_bench import CAMERAS, RELIABLE, Robot
from node_process import Process, in_namespace
from rclpy.duration import Duration
from rclpy.time import Time
from shifted_clock import ShiftedClock
from simulated_clock import SimulatedClock
from stopping_bounds import Cause, Setting, excess, longest, markdown_table

from safe_vla_ros.bench.machine import describe_machine

NAMESPACE = '/stopping'
FRAME, FOREIGN_FRAME = 'base_link', 'of_another_commander'
FAST_NODE = Path(__file__).with_name('fast_node.py')
STEADY_COMMANDS = 5
"""So many commands at full speed come before a cause."""

JUMP_S = 20.0
DEADLY = frozenset({Cause.SIGTERM, Cause.KILLED})
ATTEMPTS = 5


class Arena:
    """One node and its robot at full speed.

    Attributes:
        robot: Feeds the node.
        commands: What the node sent, in order, by the time of reception.
        clock: Simulated time.
        sent_s: When the last message of each input was stamped.
    """

    def __init__(self, setting: Setting, *, simulated: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory()
        offset_file = Path(self._folder.name) / 'offset'
        self.system_clock = ShiftedClock(offset_file)
        parameters = {
            'max_linear_speed': setting.max_linear_speed,
            'max_linear_accel': setting.max_linear_accel,
            'robot_command_timeout_s': setting.robot_command_timeout_s,
            'use_sim_time': simulated,
        }
        quiet = ['--log-level', 'error']
        arguments = [*in_namespace(NAMESPACE, **parameters), *quiet]
        self.commands: list[Heard] = []
        self.robot = Robot(f'{NAMESPACE}/pruned_policy', sim_time=simulated)
        self.clock = SimulatedClock(self.robot)
        topic = f'{NAMESPACE}/pruned_policy/ee_twist'
        self.robot.node.create_subscription(TwistStamped, topic, self._hear, RELIABLE)
        self.foreign = self.robot.node.create_publisher(TwistStamped, topic, RELIABLE)
        self.sent_s: dict[str, float] = {}
        self.process = Process(*arguments, program=(FAST_NODE, offset_file))
        if simulated:
            self.clock.run()

    def close(self) -> None:
        """End everything."""
        self.clock.stop()
        self.robot.close()
        self.process.__exit__()
        self._folder.cleanup()

    def speed_up(self, setting: Setting) -> None:
        """Bring the arm to full speed, whatever came before."""
        robot = self.robot
        robot.forget()
        robot.change_stamp = self._shifted
        robot.change_image = {camera: self._noting(camera) for camera in CAMERAS}
        robot.change_pose = self._noting('pose')
        robot.change_joints = self._noting('joints')
        state = robot.lifecycle_state()
        steps = {'unconfigured': ('configure', 'activate'), 'inactive': ('activate',)}
        for name in steps.get(state, ()):
            robot.wait(lambda name=name: robot.transition(name), name)
        robot.stop_feeding()
        robot.wait_matched(*robot.images.values(), robot.pose, robot.joints)
        robot.start_feeding()
        robot.say('go')
        after = len(self.commands)

        def fast() -> bool:
            last = self.commands[after:][-STEADY_COMMANDS:]
            full = setting.max_linear_speed * (1.0 - 1e-6)
            return len(last) == STEADY_COMMANDS and all(c.linear[0] >= full for c in last)

        robot.wait(fast, 'full speed')

    def signal(self, number: int) -> float:
        """Send the node a signal; return when."""
        self.process.child.send_signal(number)
        return time.time()

    def lose(self, name: str) -> float:
        """Let an input stop; return the stamp of its last message."""
        self.robot.silent.add(name)
        return self.sent_s[name]

    def _hear(self, message: TwistStamped, info: dict[str, int]) -> None:
        if message.header.frame_id == FRAME:
            stamp, linear = message.header.stamp, message.twist.linear
            self.commands.append(
                Heard(
                    stamp.sec + stamp.nanosec * 1e-9,
                    info['received_timestamp'] * 1e-9,
                    (linear.x, linear.y, linear.z),
                    (0.0,) * 3,
                )
            )

    def _shifted(self, stamp: object) -> object:
        by = Duration(seconds=self.system_clock.offset_s)
        return (Time.from_msg(stamp) + by).to_msg() if by.nanoseconds else stamp

    def _noting(self, name: str) -> Callable[[object], object]:
        def note(message: object) -> object:
            self.sent_s[name] = time.time()
            return message

        return note


# What each cause does: returns when it came, in real time.


def pause(arena: Arena) -> float:
    now_s = time.time()
    arena.robot.pause(True)
    return now_s


def deactivate(arena: Arena) -> float:
    now_s = time.time()
    arena.robot.begin_transition('deactivate')
    return now_s


def say_something_else(arena: Arena) -> float:
    now_s = time.time()
    # The first chunk of the new episode would end the braking early.
    arena.robot.say('go slowly')
    return now_s


def command_too(arena: Arena) -> float:
    message = TwistStamped()
    message.header.frame_id = FOREIGN_FRAME
    arena.foreign.publish(message)
    return time.time()


def jump(by_s: float) -> Callable[[Arena], float]:
    def cause(arena: Arena) -> float:
        # A chunk from a fresh observation would end the braking early.
        arena.robot.stop_feeding()
        arena.system_clock.set(arena.system_clock.offset_s + by_s)
        return time.time()

    return cause


def stop_clock(arena: Arena) -> float:
    arena.clock.stop()
    return time.time()


def stall(stall_s: float) -> Callable[[Arena], float]:
    def cause(arena: Arena) -> float:
        # As with a jump of the clock.
        arena.robot.stop_feeding()
        now_s = arena.signal(signal.SIGSTOP)
        time.sleep(stall_s)
        arena.signal(signal.SIGCONT)
        return now_s

    return cause


def causes(setting: Setting) -> dict[Cause, tuple[Callable[[Arena], float], ...]]:
    """Return what brings each cause about; those of one cause take turns."""
    return {
        Cause.PAUSE: (pause,),
        Cause.DEACTIVATE: (deactivate,),
        Cause.INSTRUCTION: (say_something_else,),
        Cause.INPUT_LOST: tuple(
            (lambda arena, name=name: arena.lose(name)) for name in (*CAMERAS, 'pose', 'joints')
        ),
        Cause.STARVED: (lambda arena: arena.signal(signal.SIGUSR1),),
        Cause.OTHER_COMMANDER: (command_too,),
        Cause.CLOCK_BACK: (jump(-JUMP_S),),
        Cause.CLOCK_AHEAD: (jump(JUMP_S),),
        Cause.CLOCK_STOPPED: (stop_clock,),
        Cause.STALLED: (stall(setting.stall_s),),
        Cause.SIGTERM: (lambda arena: arena.signal(signal.SIGTERM),),
        Cause.KILLED: (lambda arena: arena.signal(signal.SIGKILL),),
    }


def mend(arena: Arena, cause: Cause, setting: Setting) -> None:
    """Undo a cause as far as the node must be told."""
    robot = arena.robot
    if cause is Cause.PAUSE:
        robot.pause(False)
    elif cause is Cause.DEACTIVATE:
        robot.wait(lambda: robot.lifecycle_state() == 'inactive', 'the end of the transition')
    elif cause is Cause.STARVED:
        arena.signal(signal.SIGUSR2)
    elif cause is Cause.OTHER_COMMANDER:
        robot.reset()
    elif cause in {Cause.CLOCK_BACK, Cause.CLOCK_AHEAD}:
        # Setting the clock right is another jump.
        arena.system_clock.set(0.0)
    elif cause is Cause.CLOCK_STOPPED:
        arena.clock.run()


def wait_for_rest(arena: Arena, cause: Cause, began: int, setting: Setting) -> None:
    """Wait until the node has commanded a zero after a cause, or is gone."""
    if cause is Cause.KILLED:
        arena.process.child.wait()
        time.sleep(2 * setting.hold_s)
    else:
        arena.robot.wait(lambda: any(c.is_zero for c in arena.commands[began:]), 'a zero')


def measure(
    arena: Arena, cause: Cause, setting: Setting, trials: int, holds_s: dict[str, float]
) -> dict[str, list[Stop]]:
    """Run a cause again and again; return how each watchdog's robot came to rest."""
    stops: dict[str, list[Stop]] = {name: [] for name in holds_s}
    ways = causes(setting)[cause]
    attempts = 0
    while len(next(iter(stops.values()))) < trials:
        attempts += 1
        if attempts > trials + ATTEMPTS:
            msg = f'{cause.name}: the arm rests before the cause comes, again and again'
            raise RuntimeError(msg)
        arena.speed_up(setting)
        began = len(arena.commands)
        cause_s = ways[attempts % len(ways)](arena)
        wait_for_rest(arena, cause, began, setting)
        commands = arena.commands[max(0, began - STEADY_COMMANDS) :]
        mend(arena, cause, setting)
        try:
            found = {name: stop_after(commands, cause_s, hold) for name, hold in holds_s.items()}
        except ValueError:
            # A busy machine made the node halt for another reason just before.
            continue
        for name, stop in found.items():
            stops[name].append(stop)
    return stops


@contextmanager
def arena_of(setting: Setting, **options: bool):
    arena = Arena(setting, **options)
    try:
        yield arena
    finally:
        arena.close()


def run(setting: Setting, trials: int, only: list[Cause]) -> dict[Cause, dict[str, list[Stop]]]:
    """Measure causes; return the stops with and without a watchdog."""
    holds_s = {'watchdog': setting.hold_s, 'no_watchdog': math.inf}
    found: dict[Cause, dict[str, list[Stop]]] = {}

    def note(cause: Cause, stops: dict[str, list[Stop]]) -> None:
        found.setdefault(cause, {}).update(stops)
        for name, each in stops.items():
            worst = max(stop.time_s for stop in each)
            print(f'{cause.value}, {name}: {len(each)} stops, at most {worst:.3f} s', flush=True)

    usual = [cause for cause in only if cause not in {Cause.CLOCK_STOPPED, *DEADLY}]
    if usual:
        with arena_of(setting) as arena:
            for cause in usual:
                # Without a watchdog a stalled node must know that there is none.
                holds = holds_s if cause is not Cause.STALLED else {'watchdog': setting.hold_s}
                note(cause, measure(arena, cause, setting, trials, holds))
    for cause in (cause for cause in only if cause in DEADLY):
        stops: dict[str, list[Stop]] = {name: [] for name in holds_s}
        for _ in range(trials):
            # A killed node is known to others for a while, so both sides begin anew.
            with arena_of(setting) as arena:
                for name, each in measure(arena, cause, setting, 1, holds_s).items():
                    stops[name] += each
        note(cause, stops)
    if Cause.CLOCK_STOPPED in only:
        with arena_of(setting, simulated=True) as arena:
            note(Cause.CLOCK_STOPPED, measure(arena, Cause.CLOCK_STOPPED, setting, trials, holds_s))
    if Cause.STALLED in only:
        endless = Setting(**{**asdict(setting), 'robot_command_timeout_s': 0.0})
        with arena_of(endless) as arena:
            holds = {'no_watchdog': math.inf}
            note(Cause.STALLED, measure(arena, Cause.STALLED, endless, trials, holds))
    return found


def summary(stops: list[Stop]) -> dict[str, float | int | None]:
    """Sum up stops; None for what never ended."""

    def finite(value: float, digits: int) -> float | None:
        return round(value, digits) if math.isfinite(value) else None

    times_s = [stop.time_s for stop in stops]
    paths_m = [stop.distance_m for stop in stops]
    return {
        'stops': len(stops),
        'median_s': finite(statistics.median(times_s), 4),
        'longest_s': finite(max(times_s), 4),
        'median_m': finite(statistics.median(paths_m), 5),
        'farthest_m': finite(max(paths_m), 5),
    }


def excesses(found: dict[Cause, dict[str, list[Stop]]], setting: Setting) -> list[str]:
    """Return a sentence for each cause whose stops took longer than is guaranteed."""
    told = []
    for cause, by_watchdog in found.items():
        for name, stops in by_watchdog.items():
            bound = longest(cause, setting, watchdog=name == 'watchdog')
            worst = Stop(max(s.time_s for s in stops), max(s.distance_m for s in stops))
            beyond = excess(worst, bound)
            if beyond:
                told.append(f'{cause.value}, {name}: {beyond}')
    return told


def main(arguments: list[str] | None = None) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, help='write the report here')
    parser.add_argument(
        '--trials',
        type=int,
        default=10,
        help='stops per cause (10)',
    )
    parser.add_argument('--only', nargs='+', choices=[cause.name.lower() for cause in Cause])
    options = parser.parse_args(arguments)
    only = [Cause[name.upper()] for name in options.only] if options.only else list(Cause)
    setting = Setting()
    machine = describe_machine(torch.device('cpu'))
    found = run(setting, options.trials, only)
    report = {
        'command': 'make stopping',
        'machine': machine,
        'setting': asdict(setting),
        'causes': {
            cause.name.lower(): {
                name: summary(found[cause][name]) for name in ('watchdog', 'no_watchdog')
            }
            for cause in found
        },
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    if len(found) == len(Cause):
        print(markdown_table(report))
    broken = excesses(found, setting)
    print('\n'.join(broken) or 'Every stop is within the guarantee.')
    return 1 if broken else 0


if __name__ == '__main__':
    sys.exit(main())
