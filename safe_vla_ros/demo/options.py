"""Command line of the demo."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safe_vla_ros.pruning.registry import PRUNER_NAMES
from safe_vla_ros.ros.domain import own_domain
from safe_vla_ros.sim.tasks import SPATIAL, SUITES, TASKS, split_name
from safe_vla_ros.successors import successor_note

if TYPE_CHECKING:
    from collections.abc import Callable

REAL_TIME_FACTOR = 0.5
"""Leaves robot, cameras, policy and node room on two cores."""


@dataclass(frozen=True)
class Options:
    """What the demo shall do.

    Attributes:
        tasks: Names, see ``sim.tasks.split_name``.
        episodes: Episodes per task and method.
        seed: Seed of the first episode of a task; the next has the next seed.
        methods: Pruners, in the order in which they run, on the same seeds.
        keep_ratio: Share of the visual tokens that a pruned step keeps.
        out: Directory for everything that is written.
        video: Whether videos and the picture are made.
        picture: File for the picture.
        record: Directory of the recording, or None.
        policy: The policy to run instead of the robot YAML's, or None.
        params_file: Robot YAML, or None for the bundled one.
        real_time_factor: Simulated seconds per second of wall clock.
        sim_time: Whether the robot publishes /clock and the policy node follows it.
        episode_duration_s: Simulated time after which an episode has failed.
        camera_rate_hz: Rate of the robot's cameras.
        plain_objects: Whether things of restricted licences are drawn as plain boxes.
        domain_id: ROS domain of the demo.
    """

    tasks: tuple[str, ...]
    episodes: int
    seed: int
    methods: tuple[str, ...]
    keep_ratio: float
    out: Path
    video: bool
    picture: Path
    record: Path | None
    policy: str | None
    params_file: Path | None
    real_time_factor: float
    sim_time: bool
    episode_duration_s: float
    camera_rate_hz: float
    plain_objects: bool
    domain_id: int


def parse_options(arguments: list[str] | None = None) -> Options:
    """Read the command line; ends the program with a sentence when it is wrong."""
    parser = _make_parser()
    given = parser.parse_args(arguments)
    methods = (given.method,) if given.method == 'none' else (given.method, 'none')
    if given.record is not None and given.record.exists():
        parser.error(f'--record {given.record} exists; name a directory that does not')
    if given.params_file is not None and not given.params_file.is_file():
        gone = successor_note(str(given.params_file))
        parser.error(gone or f'--params-file {given.params_file} is not a file')
    return Options(
        tasks=given.tasks,
        episodes=given.episodes,
        seed=given.seed,
        methods=methods,
        keep_ratio=given.keep_ratio,
        out=given.out,
        video=not given.no_video,
        picture=given.picture or given.out / 'demo.png',
        record=given.record,
        policy=given.policy,
        params_file=given.params_file,
        real_time_factor=given.real_time_factor,
        sim_time=given.sim_time or given.real_time_factor != 1.0,
        episode_duration_s=given.episode_duration,
        camera_rate_hz=given.camera_rate,
        plain_objects=not given.original_objects,
        domain_id=given.domain_id,
    )


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.demo',
        description='Drive a simulated robot through ROS 2 with a pruned vision-language-action '
        'policy: two processes with DDS between them, and a summary at the end.',
        epilog='For a longer run that compares with success in process: '
        '--episodes 10 --tasks all --no-video',
    )
    add = parser.add_argument
    add(
        '--tasks', type=_tasks, default='all',
        help=f'comma-separated, or all for those of the bundled policy: {", ".join(TASKS)} '
        '(%(default)s)',
    )  # fmt: skip
    add(
        '--episodes', type=_whole(1), default=1,
        help='episodes per task and method (%(default)s)',
    )  # fmt: skip
    add(
        '--seed', type=_whole(0), default=10000,
        help='seed of the first episode of every task (%(default)s)',
    )  # fmt: skip
    add(
        '--method', choices=PRUNER_NAMES, default='safe',
        help='pruning method (%(default)s); "none" then runs on the same seeds for comparison',
    )  # fmt: skip
    add(
        '--keep-ratio', type=_number(0.05, 1.0), default=0.25,
        help='share of visual tokens kept (%(default)s)',
    )  # fmt: skip
    add(
        '--out', type=Path, default=Path('out/demo'),
        help='folder for everything it writes (%(default)s)',
    )  # fmt: skip
    add('--no-video', action='store_true', help='make no videos and no picture, for less load')
    add('--picture', type=Path, help='file for the picture (demo.png in --out)')
    add('--record', type=Path, metavar='DIR', help='record a rosbag2 (MCAP) of inputs and outputs')
    add('--policy', help='policy directory or bundled name (as in the robot YAML)')
    add('--params-file', type=Path, help='robot YAML (config/mini_libero.yaml)')
    add(
        '--real-time-factor', type=_number(0.05, 10.0), default=REAL_TIME_FACTOR,
        help='speed of the simulation; any but 1 implies --sim-time (%(default)s)',
    )  # fmt: skip
    add('--sim-time', action='store_true', help='publish /clock and follow it')
    add(
        '--episode-duration', type=_number(0.1, 3600.0), metavar='S',
        default=SUITES[SPATIAL] * 0.05,
        help='simulated seconds after which an episode counts as failed (%(default)s)',
    )  # fmt: skip
    add(
        '--camera-rate', type=_number(1.0, 100.0), default=20.0,
        help='rate of the cameras in Hz (%(default)s)',
    )  # fmt: skip
    add(
        '--original-objects', action='store_true',
        help='show things whose licences restrict passing pictures on (cookies and cabinet, see '
        'NOTICE) instead of plain boxes',
    )  # fmt: skip
    add(
        '--domain-id', type=_whole(0, 232), default=own_domain(),
        help='ROS domain (%(default)s now; every run takes another one)',
    )  # fmt: skip
    return parser


def _tasks(text: str) -> tuple[str, ...]:
    names = TASKS if text == 'all' else tuple(dict.fromkeys(text.split(',')))
    try:
        for name in names:
            split_name(name)
    except KeyError as error:
        raise argparse.ArgumentTypeError(error.args[0]) from error
    return names


def _whole(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = minimum - 1
        if not minimum <= value <= maximum:
            msg = f'must be an integer from {minimum} to {maximum}, got {text!r}'
            raise argparse.ArgumentTypeError(msg)
        return value

    return parse


def _number(minimum: float, maximum: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not minimum <= value <= maximum:
            msg = f'must be a number from {minimum:g} to {maximum:g}, got {text!r}'
            raise argparse.ArgumentTypeError(msg)
        return value

    return parse
