"""Begins the simulated robot's episodes: scenes load and reset off the physics thread. No ROS."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.sim.arm import SimulatedPanda

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.sim.camera_thread import CameraThread
    from safe_vla_ros.sim.robot_loop import EpisodeEvent, RobotLoop


PATIENCE_S = 120.0
"""How long a start waits for one before it."""


class StartError(SafeVlaError):
    """No episode can begin now, or at all."""


class EpisodeStarter:
    """Hands arms to a ``RobotLoop`` that are ready for an episode; one start waits for another.

    The arm of a scene that is left stays in the loop, and moves on, while the next scene loads. To
    be reset, an arm is taken out of the loop; the loop's time goes on meanwhile.
    """

    def __init__(
        self,
        loop: RobotLoop,
        cameras: CameraThread,
        *,
        make_arm: Callable[..., SimulatedPanda] = SimulatedPanda,
    ) -> None:
        """Connect the parts; nothing loads yet.

        Args:
            loop: Gets the arms.
            cameras: Made ready for every new scene.
            make_arm: Loads a task; has the arguments of ``SimulatedPanda``.
        """
        self._loop, self._cameras, self._make_arm = loop, cameras, make_arm
        self._arm: SimulatedPanda | None = None
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a scene is being changed."""
        return self._lock.locked()

    def show(self, task: str, *, seed: int, init_state: int | None = None) -> None:
        """Load a scene and let its arm stand in it without an episode; see ``start``."""
        self._begin(task, seed, init_state, self._loop.take)

    def start(self, task: str, *, seed: int, init_state: int | None = None) -> EpisodeEvent:
        """Abort the running episode and begin another one; takes seconds for another scene.

        Args:
            task: Name, see ``tasks.get_task``.
            seed: Seed of the placement.
            init_state: Number of an official initial state, or None.

        Returns:
            The event of its start.

        Raises:
            StartError: Another scene does not stop loading, or the robot does not go on.
            ImportError, KeyError, ValueError, RuntimeError: The scene cannot be loaded or shown.
        """

        def hand_over(arm: SimulatedPanda) -> bool:
            return self._loop.start_episode(arm, seed, init_state)

        self._begin(task, seed, init_state, hand_over)
        event = self._loop.episode
        if event is None:
            msg = 'no episode began'
            raise StartError(msg)
        return event

    def _begin(
        self,
        task: str,
        seed: int,
        init_state: int | None,
        hand_over: Callable[[SimulatedPanda], bool],
    ) -> None:
        if not self._lock.acquire(timeout=PATIENCE_S):
            msg = f'another scene has been loading for {PATIENCE_S:g} s'
            raise StartError(msg)
        try:
            self._loop.abort_episode()
            before, arm = self._arm, self._ready_arm(task, seed, init_state)
            if not hand_over(arm):
                msg = 'the robot does not go on: no episode could be started'
                raise StartError(msg)
            if before is not None and before is not arm:
                before.close()
        finally:
            self._lock.release()

    def _ready_arm(self, task: str, seed: int, init_state: int | None) -> SimulatedPanda:
        arm = self._arm
        if arm is not None and arm.has_task(task):
            self._loop.take(None)
            arm.ask(task)
            arm.reset(seed, init_state=init_state)
            return arm
        arm = self._make_arm(task, seed=seed, init_state=init_state)
        if not self._cameras.prepare(arm):
            msg = f'the cameras cannot be rendered: {self._cameras.error}'
            raise RuntimeError(msg)
        self._arm = arm
        return arm
