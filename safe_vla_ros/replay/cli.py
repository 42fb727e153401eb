"""The command ``replay``."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
from rich.console import Console

from safe_vla_ros.bounded_files import parse_yaml
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.replay.bag_replay import INTERRUPTED, BagTask
from safe_vla_ros.replay.errors import ReplayError
from safe_vla_ros.replay.jobs import Shard, process_context, replay_here, replay_in_processes
from safe_vla_ros.replay.latency import MEASURED, LatencyModel
from safe_vla_ros.replay.merge import merge
from safe_vla_ros.replay.output import REPORT, ResultFolder
from safe_vla_ros.replay.progress import ProgressDisplay, summary_table
from safe_vla_ros.replay.replay_setup import (
    LOG_CLOCK,
    STAMP_CLOCK,
    OverlaySettings,
    ReplaySettings,
    load_setup,
    policy_reference,
    resolve_methods,
)
from safe_vla_ros.replay.topic_routes import parse_overrides
from safe_vla_ros.runtime.parameter_file import read_parameter_file, read_remappings
from safe_vla_ros.runtime.parameters import resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from safe_vla_ros.runtime.parameters import Resolved

OK, SOME_BAGS_FAILED, NOT_STARTED, STOPPED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Command line without the program's name; the process's own when not given.

    Returns:
        0 when everything was replayed, 1 when some bags could not be, 2 when there is no
        result, 130 when Ctrl-C ended it with a partial result.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    console = Console()
    try:
        if arguments[:1] == ['merge']:
            return _merge(arguments[1:], console)
        return _replay(arguments, console)
    except SafeVlaError as error:
        console.print(f'error: {error}', style='red', markup=False, highlight=False)
        return NOT_STARTED
    except KeyboardInterrupt:
        console.print('stopped; nothing was written', style='red')
        return STOPPED


def _replay(arguments: Sequence[str], console: Console) -> int:
    options = _parser().parse_args(arguments)
    shard = Shard.parse(options.shard)
    tasks = [BagTask(index, path) for index, path in enumerate(options.bags)]
    mine = shard.of(tasks)
    out = options.out or Path('out/replay') / (options.bags[0].resolve().stem or 'bag')
    target = ResultFolder(out, overwrite=options.overwrite, sources=options.bags)
    with target as folder, _stopping() as stop:
        settings, resolved = _settings(options)
        with ProgressDisplay(console, max(len(mine), 1)) as progress:
            if min(options.jobs, len(mine)) > 1:
                results = replay_in_processes(
                    mine,
                    settings,
                    folder.bag,
                    progress,
                    stop=stop,
                    jobs=min(options.jobs, len(mine)),
                    load=load_setup,
                )
            else:
                cv2.setNumThreads(1)
                results = replay_here(
                    mine, lambda: load_setup(settings), folder.bag, progress, stop.is_set
                )
        header = _header(settings, resolved, shard)
        summary = folder.publish(header, [str(path) for path in options.bags], results)
    console.print(summary_table(summary))
    return _tell(summary, out, console, expected=len(mine), stopped=stop.is_set())


def _merge(arguments: Sequence[str], console: Console) -> int:
    parser = argparse.ArgumentParser('replay merge', description='Join the results of shards.')
    parser.add_argument('results', nargs='+', type=Path, help='folders that replay has written')
    parser.add_argument('--out', type=Path, required=True, help='folder for the joined result')
    parser.add_argument('--overwrite', action='store_true', help='replace an older result')
    options = parser.parse_args(arguments)
    summary = merge(options.results, options.out, overwrite=options.overwrite)
    console.print(summary_table(summary))
    return _tell(summary, options.out, console, expected=len(summary['bag_list']), stopped=False)


def _tell(
    summary: dict[str, Any], out: Path, console: Console, *, expected: int, stopped: bool
) -> int:
    for reason in summary['why_partial']:
        console.print(f'partial: {reason}', style='yellow', markup=False)
    console.print(f'report: {out / REPORT}', markup=False, soft_wrap=True)
    statuses = [bag['status'] for bag in summary['bags']]
    if stopped or INTERRUPTED in statuses:
        return STOPPED
    good = statuses.count('complete') == len(statuses) == expected
    return OK if good else SOME_BAGS_FAILED


def _settings(options: argparse.Namespace) -> tuple[ReplaySettings, dict[str, Resolved]]:
    """Read what was asked and check it, before anything heavy is loaded."""
    from safe_vla_ros.policies.registry import read_spec  # noqa: PLC0415  (imports torch)
    from safe_vla_ros.pruning.registry import PRUNER_NAMES  # noqa: PLC0415

    values: dict[str, Any] = {}
    remappings: dict[str, str] = {}
    if options.params:
        values = read_parameter_file(options.params, options.node)
        remappings = read_remappings(options.params)
    for item in options.set:
        name, equals, text = item.partition('=')
        if not equals:
            msg = f'--set got {item!r}; allowed is NAME=VALUE'
            raise ReplayError(msg)
        try:
            values[name] = parse_yaml(text)
        except ValueError as error:
            msg = f'--set got {item!r}, whose value is no YAML: {error}'
            raise ReplayError(msg) from error
    if options.policy:
        values['policy'] = options.policy
    if options.instruction is not None:
        values['instruction'] = options.instruction
    spec = read_spec(policy_reference(values))
    own = resolve(values, spec, pruner_names=PRUNER_NAMES).pruning.method
    compared = [name.strip() for name in options.compare.split(',') if name.strip()]
    settings = ReplaySettings(
        values=values,
        methods=tuple(dict.fromkeys([own, *compared])),
        latency=LatencyModel.parse(options.latency),
        remappings=remappings,
        clock=options.clock,
        overlays=OverlaySettings(options.overlays, options.overlay_width),
    )
    resolved = resolve_methods(settings, spec, PRUNER_NAMES)
    cameras = resolved[own].policy.cameras
    topics = parse_overrides([item for group in options.topics for item in group], cameras)
    return ReplaySettings(**{**vars(settings), 'topics': topics}), resolved


def _header(
    settings: ReplaySettings, resolved: dict[str, Resolved], shard: Shard
) -> dict[str, Any]:
    own = next(iter(resolved.values()))
    try:
        package = version('safe_vla_ros')
    except PackageNotFoundError:
        package = 'unknown'
    return {
        'version': package,
        'shard': str(shard),
        'settings': {
            'policy': policy_reference(settings.values),
            'methods': list(settings.methods),
            'latency': str(settings.latency),
            'clock': settings.clock,
            'execute_steps': own.control.execute_steps,
            'action_period_s': own.control.action_period_s,
            'overlays': dict(vars(settings.overlays)),
            'topics': dict(settings.topics),
            'remappings': dict(settings.remappings),
            'parameters': {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in own.values.items()
            },
        },
    }


@contextmanager
def _stopping() -> Iterator[Any]:
    """Let the first Ctrl-C or SIGTERM ask for an end, and a second Ctrl-C interrupt at once."""
    stop = process_context().Event()

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        'replay',
        description="Score a policy on recordings with the node's own code, on the bag's clock.",
        epilog='"replay merge DIR... --out DIR" joins the results of shards.',
    )
    add = parser.add_argument
    add('bags', nargs='+', type=Path, metavar='BAG', help='rosbag2 folder, .mcap file or .db3 file')
    add('--params', type=Path, metavar='YAML', help='robot YAML')
    add('--node', default='/pruned_policy', help='name of the node in the robot YAML (%(default)s)')
    add(
        '--policy',
        help='policy instead of the one in the robot YAML: directory, bundled name or '
        'hf:org/name@<40-hex commit>',
    )
    add(
        '--set',
        action='append',
        default=[],
        metavar='NAME=VALUE',
        help='set one parameter; repeatable',
    )
    add(
        '--compare',
        default='none',
        metavar='METHODS',
        help='comma-separated pruning methods to run besides the robot\'s own; "none" adds the '
        'differences to unpruned actions (%(default)s)',
    )
    add(
        '--latency',
        default=MEASURED,
        metavar='MS',
        help='milliseconds from observation to chunk, or "measured" (default); with a number, '
        'the result does not depend on the machine',
    )
    add('--instruction', help='initial instruction, for a bag that begins after it was sent')
    add(
        '--topics',
        nargs='+',
        action='append',
        default=[],
        metavar='NAME=TOPIC',
        help='topic of a camera, instruction, ee_pose, joint_states, recorded_twist, '
        'recorded_gripper or episode; an empty topic leaves it out',
    )
    add(
        '--clock',
        choices=(LOG_CLOCK, STAMP_CLOCK),
        default=LOG_CLOCK,
        help='time of the recorder (log, default), or of the headers if they come from another '
        'clock (stamps)',
    )
    add('--overlays', choices=('compressed', 'raw', 'none'), default='compressed')
    add(
        '--overlay-width',
        type=_width,
        default=320,
        metavar='PX',
        help='largest width of an overlay (%(default)s)',
    )
    add('--out', type=Path, metavar='DIR', help='folder for the results (out/replay/<bag>)')
    add('--overwrite', action='store_true', help='replace an older result')
    add('--jobs', type=_jobs, default=1, metavar='N', help='number of processes (%(default)s)')
    add(
        '--shard',
        default='1/1',
        metavar='i/n',
        help='replay only every n-th bag, starting with the i-th',
    )
    return parser


def _jobs(text: str) -> int:
    return _between(text, 1, 1024)


def _width(text: str) -> int:
    return _between(text, 56, 4096)


def _between(text: str, low: int, high: int) -> int:
    if not text.isdigit() or not low <= int(text) <= high:
        msg = f'got {text!r}; allowed is {low}..{high}'
        raise argparse.ArgumentTypeError(msg)
    return int(text)
