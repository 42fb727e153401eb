"""What happens to the node in a soak: tasks, lost inputs, pauses, parameters, transitions, stalls.

Every event undoes what it did and ends when the node says `running` again.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from soak_robot import CAMERA_SIZES_PX, SoakRobot

PLACES = (
    'between the plate and the ramekin',
    'next to the ramekin',
    'from table center',
    'next to the plate',
)
TASKS = tuple(f'pick up the black bowl {place} and place it on the plate' for place in PLACES)
SPEEDS_M_S = (0.1, 0.25, 0.4)
"""Largest speeds that the soak sets."""

PARAMETERS = {
    'pruning.method': ('safe', 'refresh', 'none', 'vla_cache', 'fastv', 'random'),
    'pruning.keep_ratio': (0.1, 0.25, 0.5, 1.0),
    'blending': ('none', 'crossfade', 'ensemble', 'cogact_ensemble'),
    'max_linear_speed': SPEEDS_M_S,
    'observation_timeout_s': (0.3, 0.5),
    'execute_steps': (2, 3, 4),
}
REFUSED = {
    'pruning.method': 'magic',
    'pruning.keep_ratio': 7.0,
    'max_linear_speed': -1.0,
    'execute_steps': 1000,
}
STALL_S = 0.3


@dataclass(frozen=True)
class Soaked:
    """The node in a soak.

    Attributes:
        robot: Feeds it and hears it.
        random: Says what happens.
        pid: Process of the node.
    """

    robot: SoakRobot
    random: Random
    pid: int

    def drive(self) -> None:
        """Let the arm move for a while."""
        self._let_pass(0.5, 2.0)

    def new_task(self) -> None:
        """Say another task, or one that the policy never heard, or the same one again."""
        self.robot.say(self.random.choice((*TASKS, f'sort {self.random.random()}')))

    def empty_task(self) -> None:
        """Say nothing, then a task."""
        self.robot.say('')
        self.robot.wait_state('waiting', 'no instruction')
        self.robot.say(self.random.choice(TASKS))

    def lose_input(self) -> None:
        """Let an input stop for a time that the node can, or cannot, bear."""
        name = self.random.choice((*CAMERA_SIZES_PX, 'pose', 'joints'))
        self.robot.silent.add(name)
        self._let_pass(0.1, 1.2)
        self.robot.silent.discard(name)

    def reset(self) -> None:
        """Begin a new episode."""
        assert self.robot.reset().success

    def pause(self) -> None:
        """Pause and go on."""
        assert self.robot.pause(True).success
        self.robot.wait_state('paused')
        self._let_pass(0.0, 1.0)
        assert self.robot.pause(False).success

    def set_parameters(self) -> None:
        """Set some parameters at once."""
        names = self.random.sample(sorted(PARAMETERS), 3)
        values = {name: self.random.choice(PARAMETERS[name]) for name in names}
        answer = self.robot.set_atomically(**values)
        assert answer.successful, answer.reason

    def set_badly(self) -> None:
        """Set a value that must be refused."""
        name = self.random.choice(sorted(REFUSED))
        answer = self.robot.set_atomically(**{name: REFUSED[name]})
        assert not answer.successful, name

    def reactivate(self) -> None:
        """Deactivate and activate."""
        self._deactivate()
        self._let_pass(0.0, 0.5)
        self._activate()

    def reconfigure(self) -> None:
        """Go back to unconfigured and load the policy again."""
        self._deactivate()
        self._change('cleanup')
        self._change('configure')
        self._activate()
        # A configured node begins without a task.
        self.robot.say(self.random.choice(TASKS))

    def stall(self) -> None:
        """Stop the process for longer than the robot holds a command."""
        os.kill(self.pid, signal.SIGSTOP)
        time.sleep(STALL_S)
        os.kill(self.pid, signal.SIGCONT)

    def begin(self) -> None:
        """Bring the node from unconfigured to motion."""
        self._change('configure')
        self._activate()
        robot = self.robot
        robot.wait_matched(*robot.images.values(), robot.pose, robot.joints)
        robot.start_feeding()
        robot.say(TASKS[0])

    def end(self) -> None:
        """Bring the node to rest."""
        self._deactivate()

    def settle(self) -> None:
        """Wait until the node says `running` and its life cycle says active."""
        self.robot.wait_state('running')
        assert self.robot.lifecycle_state() == 'active'

    def _let_pass(self, shortest_s: float, longest_s: float) -> None:
        time.sleep(self.random.uniform(shortest_s, longest_s))

    def _deactivate(self) -> None:
        self._change('deactivate')
        self.robot.recorder.hush(time.time())

    def _activate(self) -> None:
        self.robot.carry_back()
        self.robot.recorder.unhush(time.time())
        self._change('activate')

    def _change(self, name: str) -> None:
        assert self.robot.transition(name), f'{name} was refused'


EVENTS: dict[Callable[[Soaked], None], int] = {
    Soaked.drive: 6,
    Soaked.new_task: 4,
    Soaked.empty_task: 1,
    Soaked.lose_input: 4,
    Soaked.reset: 2,
    Soaked.pause: 3,
    Soaked.set_parameters: 4,
    Soaked.set_badly: 1,
    Soaked.reactivate: 3,
    Soaked.reconfigure: 3,
    Soaked.stall: 1,
}
"""Every event and its weight."""
