"""One run of the demo: two processes, their lifecycle, and the episodes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from safe_vla_ros.demo.processes import Child
from safe_vla_ros.demo.results import EpisodeResult
from safe_vla_ros.demo.video import Film, write_picture, write_video
from safe_vla_ros.errors import OutputError
from safe_vla_ros.ros.bag_recorder import BagRecorder, demo_topics
from safe_vla_ros.ros.episode_driver import DriverError, EpisodeDriver
from safe_vla_ros.sim.attribution import attribution
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.robot_file import robot_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from safe_vla_ros.demo.display import Display
    from safe_vla_ros.demo.options import Options
    from safe_vla_ros.ros.episode_driver import EpisodeNotes

POLICY, ROBOT = 'pruned_policy', 'sim_robot'
FILMED_CAMERA = next(iter(CAMERA_SIZES_PX))
PATIENCE, GRACE_S = 3.0, 60.0
"""A robot is stuck when an episode takes that many times its duration, and some seconds more."""


@dataclass
class Session:
    """What a run has brought so far.

    Attributes:
        episodes: Episodes that have ended.
        diagnostics: Per method, the last values by status name on ``/diagnostics``.
        films: What was filmed, by task.
        troubles: Sentences about what could not be recorded or written.
    """

    episodes: list[EpisodeResult] = field(default_factory=list)
    diagnostics: dict[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    films: dict[str, Film] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)


def run_session(options: Options, display: Display, session: Session) -> None:
    """Run every episode that was asked for; the session is filled as it goes.

    The processes have ended when this returns or raises.

    Raises:
        SafeVlaError: A process ended, a node does not answer, or the policy made no inference.
    """
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child) for child in make_children(options)]
        display.say(
            f'Started {", ".join(f"{child.name} (process {child.pid})" for child in children)} in '
            f'ROS_DOMAIN_ID={options.domain_id}; logs in {options.out / "logs"}'
        )

        def watch() -> None:
            for child in children:
                child.check()

        driver = EpisodeDriver(
            domain_id=options.domain_id, policy=POLICY, robot=ROBOT, watch=watch,
            use_sim_time=options.sim_time,
        )  # fmt: skip
        stack.callback(driver.close)
        display.say(_pace(options))
        display.say('Loading the policy ...')
        try:
            driver.configure()
            if options.record is not None:
                stack.enter_context(_recording(options.record, driver, display, session))
            run = _Run(options, driver, display, session)
            for method in options.methods:
                run.run_method(method)
        except DriverError as error:
            msg = f'{error}\nThe end of {children[1].log}:\n{children[1].last_lines()}'
            raise DriverError(msg) from error


def make_children(options: Options) -> list[Child]:
    """Describe the robot's and the policy node's process."""
    environment = {
        'ROS_DOMAIN_ID': str(options.domain_id),
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
    }
    robot = {
        'real_time_factor': options.real_time_factor,
        'episode_duration_s': options.episode_duration_s,
        'camera_rate_hz': options.camera_rate_hz,
        'publish_clock': options.sim_time,
        'plain_objects': options.plain_objects,
    }
    policy = {'use_sim_time': options.sim_time}
    params_file = options.params_file or robot_file()
    logs = options.out / 'logs'
    return [
        Child(
            ROBOT,
            'safe_vla_ros.ros.sim_robot',
            [
                '--ros-args',
                *_parameters(robot),
                *('-r', f'ee_twist:={POLICY}/ee_twist', '-r', f'gripper:={POLICY}/gripper'),
            ],
            log=logs / 'sim_robot.log',
            environment={**environment, 'OMP_NUM_THREADS': '1'},
        ),
        Child(
            POLICY,
            'safe_vla_ros.ros.pruned_policy',
            [
                *('--ros-args', '--params-file', str(params_file)),
                *_parameters(policy | ({'policy': options.policy} if options.policy else {})),
            ],
            log=logs / 'pruned_policy.log',
            environment=environment,
        ),
    ]


def _pace(options: Options) -> str:
    factor = options.real_time_factor
    if factor == 1.0:
        return 'The robot moves in real time (real_time_factor 1).'
    return (
        f"The robot's time runs at {factor:g} of real time (real_time_factor), so a latency of the "
        f'policy of 100 ms is one of {100 * factor:g} ms to the robot.'
    )


def write_films(options: Options, session: Session) -> list[str]:
    """Write the videos and the picture; what cannot be written is among the session's troubles.

    Returns:
        The names of the files.
    """
    written = []

    def write(path: Path, writing: Callable[[], bool]) -> None:
        try:
            if writing():
                written.append(str(path))
        except OutputError as error:
            session.troubles.append(str(error))

    for task, film in session.films.items():
        path = options.out / f'{task.replace("/", "_")}.mp4'
        write(path, partial(write_video, film, path, options.camera_rate_hz))
    films = list(session.films.values())
    write(options.picture, partial(write_picture, films, options.picture))
    return written


@contextlib.contextmanager
def _recording(
    path: Path, driver: EpisodeDriver, display: Display, session: Session
) -> Iterator[None]:
    """Record while the block runs, and tell the user at once when that ends early."""
    topics = demo_topics(POLICY, ROBOT, tuple(CAMERA_SIZES_PX))
    recorder = BagRecorder(
        driver.node, path, topics, on_trouble=lambda text: display.say(f'error: {text}')
    )
    try:
        yield
    finally:
        recorder.close()
        if recorder.trouble:
            session.troubles.append(recorder.trouble)


class _Run:
    """The episodes of a session, with everything that they need."""

    def __init__(
        self, options: Options, driver: EpisodeDriver, display: Display, session: Session
    ) -> None:
        self._options, self._driver = options, driver
        self._display, self._session = display, session

    def run_method(self, method: str) -> None:
        options, driver, session = self._options, self._driver, self._session
        driver.set_pruning(method, options.keep_ratio)
        driver.activate()
        for task in options.tasks:
            for index in range(options.episodes):
                filmed = options.video and index == 0
                driver.watch_pictures(_filmed_topics() if filmed else {})
                self._display.begin(method, task, options.seed + index)
                result, notes = self._run_episode(method, task, options.seed + index)
                session.episodes.append(result)
                self._display.end(result, result.numbers())
                if filmed and method == options.methods[0]:
                    session.films[task] = _film(result, notes, options)
                self._keep_diagnostics(method)
        driver.refresh_diagnostics()
        self._keep_diagnostics(method)
        driver.deactivate()

    def _keep_diagnostics(self, method: str) -> None:
        self._session.diagnostics[method] = {
            name: note.values for name, note in self._driver.diagnostics.items()
        }

    def _run_episode(self, method: str, task: str, seed: int) -> tuple[EpisodeResult, EpisodeNotes]:
        options, driver = self._options, self._driver
        driver.begin_episode(task, seed)
        started_s = time.monotonic()
        nominal_s = options.episode_duration_s / options.real_time_factor
        event = driver.end_of_episode(nominal_s * PATIENCE + GRACE_S, self._show)
        duration_s = time.monotonic() - started_s
        notes = driver.new_notes()
        if not notes.inferences:
            states = '; '.join(f'{note.message} {dict(note.values)}' for note in notes.states)
            msg = f'the policy made no inference in episode {task}, seed {seed}; states: {states}'
            raise DriverError(msg)
        result = EpisodeResult(
            method=method,
            task=task,
            seed=seed,
            outcome=event.message,
            elapsed_s=float(event.values['elapsed_s']),
            duration_s=duration_s,
            sentence=event.values['instruction'],
            first_lifted=event.values['first_lifted'],
            inferences=tuple(note.values for note in notes.inferences),
            robot=tuple(n.values for n in notes.diagnostics if n.name.endswith(': robot')),
        )
        return result, notes

    def _show(self) -> None:
        inferences = self._driver.notes.inferences
        self._display.update(inferences[-1].values if inferences else None)


def _filmed_topics() -> dict[str, str]:
    overlays = {name: f'{POLICY}/saliency/{name}/image_raw' for name in CAMERA_SIZES_PX}
    return {'camera': f'{FILMED_CAMERA}/image_raw', **overlays}


def _film(result: EpisodeResult, notes: EpisodeNotes, options: Options) -> Film:
    """Cut what was seen before the episode: the scene of the one before."""
    started_s = min((n.stamp_s for n in notes.events if n.message == 'started'), default=0.0)
    camera, *overlays = (
        [frame for frame in notes.pictures.get(name, []) if frame[0] >= started_s]
        for name in ('camera', *CAMERA_SIZES_PX)
    )
    caption = f'"{result.sentence}"   {result.method}: {result.outcome}'
    return Film(caption, camera, overlays, attribution(plain_objects=options.plain_objects))


def _parameters(values: Mapping[str, object]) -> list[str]:
    arguments = []
    for name, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        arguments += ['-p', f'{name}:={text}']
    return arguments
