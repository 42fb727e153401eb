"""A MetaWorld Sawyer that is driven as a velocity-controlled arm."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from safe_vla_ros.sim.rendering import GOAL_RADIUS_M, Renderer, SceneSnapshot, use_headless_gl
from safe_vla_ros.sim.tasks import get_task

if TYPE_CHECKING:
    from safe_vla_ros.types import Float64Array, UInt8Array

STEP_S = 0.0125
"""Duration of one environment step in simulated time, seconds (5 physics steps of 2.5 ms)."""

COMMAND_TIMEOUT_S = 0.1
MAX_LEAD_M = 0.05
FULL_SPEED_M_S = 0.8
"""Speed of the mocap target at an expert action of 1 per axis (0.01 m every 12.5 ms)."""

BASE_FRAME = 'base_link'
"""Frame of its poses and velocities."""

GRIPPER_JOINTS = ('gripper_left', 'gripper_right')
_MUJOCO_GRIPPER_JOINTS = ('l_close', 'r_close')
_STILL_M_S = 1e-6


@dataclass(frozen=True)
class ArmState:
    """The whole physical state of an arm and its scene."""

    physics: Float64Array
    gripper_effort: float


class SimulatedArm:
    """One task's arm and scene. Not thread-safe; render snapshots elsewhere with ``Renderer``.

    A twist moves the target that the hand is welded to; the target never leads the hand by more
    than 5 cm and is set to the hand when motion stops (no command for 0.1 s, or a zero twist).
    """

    def __init__(self, task: str, *, seed: int = 0, real_time_factor: float = 1.0) -> None:
        """Load the task and reset it.

        Args:
            task: Name in ``TASKS``.
            seed: Seed of object and goal positions.
            real_time_factor: Simulated seconds per second of the commands' clock.

        Raises:
            KeyError: Unknown task.
            ValueError: The factor is not positive.
        """
        if not real_time_factor > 0:
            msg = f'real_time_factor must be positive, got {real_time_factor}'
            raise ValueError(msg)
        self.task = get_task(task)
        use_headless_gl()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            import mujoco  # noqa: PLC0415  (after use_headless_gl)
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS  # noqa: PLC0415
            from metaworld.policies import ENV_POLICY_MAP  # noqa: PLC0415

            self._env: Any = ALL_V3_ENVIRONMENTS[self.task.environment]()
        self._mujoco = mujoco
        self._expert: Any = ENV_POLICY_MAP[self.task.environment]()
        self._make_fully_random_and_observable()
        self._step_s = STEP_S / real_time_factor
        self._renderer: Renderer | None = None
        self._pictures: dict[str, tuple[SceneSnapshot, UInt8Array]] = {}
        self.reset(seed)

    @property
    def model(self) -> Any:
        """The ``mujoco.MjModel``, for a ``Renderer``."""
        return self._env.model

    @property
    def step_s(self) -> float:
        """Duration of one ``step`` on the commands' clock, seconds."""
        return self._step_s

    @property
    def instruction(self) -> str:
        """The task's sentence."""
        return self.task.sentence

    @property
    def ee_position(self) -> Float64Array:
        """Position of the hand in the base frame, float64 [3], metres."""
        return np.array(self._env.data.body('hand').xpos)

    @property
    def ee_quaternion_xyzw(self) -> Float64Array:
        """Orientation of the hand, float64 [4] as x, y, z, w."""
        w, x, y, z = self._env.data.body('hand').xquat
        return np.array([x, y, z, w])

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Arm joints and the two gripper joints, as ``joint_positions`` orders them."""
        return (*(f'right_j{i}' for i in range(7)), *GRIPPER_JOINTS)

    @property
    def joint_positions(self) -> Float64Array:
        """Joint positions, float64 [9]: rad for the arm, metres for the gripper."""
        names = (*(f'right_j{i}' for i in range(7)), *_MUJOCO_GRIPPER_JOINTS)
        return np.array([float(self._env.data.joint(name).qpos[0]) for name in names])

    @property
    def gripper_positions(self) -> Float64Array:
        """Positions of ``GRIPPER_JOINTS``, float64 [2], metres."""
        return np.array([float(self._env.data.joint(n).qpos[0]) for n in _MUJOCO_GRIPPER_JOINTS])

    def reset(self, seed: int) -> None:
        """Start an episode: objects and goal at positions drawn from the seed, the hand at home."""
        state = np.random.get_state()  # noqa: NPY002  (MetaWorld draws from the global generator)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            self._env.reset()
        finally:
            np.random.set_state(state)  # noqa: NPY002
        self._show_goal()
        self._mujoco.mj_forward(self._env.model, self._env.data)
        self._velocity = np.zeros(3)
        self._command_time_s = -np.inf
        self._gripper_effort = -1.0
        self._moving = False
        self.success = False
        self._hold_target()

    def command_twist(self, linear_m_s: Float64Array, now_s: float) -> None:
        """Move the end effector at a linear velocity until the next command or the timeout.

        Args:
            linear_m_s: Velocity in the base frame, float64 [3], m/s.
            now_s: Time of the command on the clock that ``step`` is called with.

        Raises:
            ValueError: The velocity is not three finite numbers; nothing changes.
        """
        velocity = np.asarray(linear_m_s, dtype=np.float64)
        if velocity.shape != (3,) or not np.isfinite(velocity).all():
            msg = f'a twist needs three finite linear velocities, got {linear_m_s}'
            raise ValueError(msg)
        self._velocity = velocity.copy()
        self._command_time_s = now_s

    def command_gripper(self, opening: float) -> None:
        """Open or close the gripper.

        Args:
            opening: 0 closed (full effort) .. 1 open; clipped.

        Raises:
            ValueError: Not finite; nothing changes.
        """
        if not np.isfinite(opening):
            msg = f'a gripper opening must be finite, got {opening}'
            raise ValueError(msg)
        self._gripper_effort = 1.0 - 2.0 * float(np.clip(opening, 0.0, 1.0))

    def step(self, now_s: float) -> None:
        """Advance physics by one environment step (12.5 ms of simulated time).

        Args:
            now_s: Time on the commands' clock; a command older than 0.1 s no longer moves the arm.
        """
        speed = float(np.linalg.norm(self._velocity))
        if speed > _STILL_M_S and now_s - self._command_time_s <= COMMAND_TIMEOUT_S:
            self._move_target(self._velocity * self._step_s)
            self._moving = True
        elif self._moving:
            self._hold_target()
            self._moving = False
        self._physics()
        self.success = self.success or self._succeeded()

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
        data = self._env.data
        return SceneSnapshot(data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy())

    def close(self) -> None:
        """Free the renderer, if there is one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def hidden_state(self) -> Float64Array:
        """Return object and goal position, float64 [6], metres: for a teacher, never a policy."""
        objects = np.asarray(self._env._get_pos_objects(), dtype=np.float64)[:3]  # noqa: SLF001
        return np.concatenate([objects, np.asarray(self._env._target_pos)[:3]])  # noqa: SLF001

    def expert_action(self) -> Float64Array:
        """Return the scripted expert's action for the present state, float64 [4] within +-1.

        The first three are the target's velocity in units of ``FULL_SPEED_M_S``, the last the grip
        effort (-1 open .. 1 closed).
        """
        current = self._env._get_curr_obs_combined_no_goal()  # noqa: SLF001
        observation = np.hstack([current, current, self._env._target_pos])  # noqa: SLF001
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            action = self._expert.get_action(observation)
        return np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)

    def save(self) -> ArmState:
        """Copy the whole physical state, for ``plan_with_expert``."""
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(self._mujoco.mj_stateSize(self.model, kind))
        self._mujoco.mj_getState(self.model, self._env.data, physics, kind)
        return ArmState(physics, self._gripper_effort)

    def plan_with_expert(
        self, start: ArmState, steps: int, *, period_s: float, max_speed_m_s: float
    ) -> tuple[Float64Array, Float64Array]:
        """Ask what the expert would do from a state: a trial run that is undone.

        Args:
            start: Where the plan starts, from ``save``.
            steps: Actions to plan.
            period_s: Duration of an action on the commands' clock, seconds.
            max_speed_m_s: Speed that the plan is held to (the norm is scaled).

        Returns:
            Displacements float64 [steps, 3] in metres and gripper openings float64 [steps].
        """
        present = self.save()
        self._restore(start)
        repeats = max(1, round(period_s / self._step_s))
        translation, opening = np.zeros((steps, 3)), np.zeros(steps)
        for index in range(steps):
            action = self.expert_action()
            velocity = action[:3] * FULL_SPEED_M_S
            speed = float(np.linalg.norm(velocity))
            if speed > max_speed_m_s:
                velocity *= max_speed_m_s / speed
            translation[index] = velocity * period_s
            opening[index] = (1.0 - action[3]) / 2.0
            self._gripper_effort = float(action[3])
            for _ in range(repeats):
                self._move_target(velocity * self._step_s)
                self._physics()
        self._restore(present)
        return translation, opening

    def _make_fully_random_and_observable(self) -> None:
        env = self._env
        env._partially_observable = False  # noqa: SLF001
        env._freeze_rand_vec = False  # noqa: SLF001
        env._set_task_called = True  # noqa: SLF001
        env.__dict__.pop('sawyer_observation_space', None)
        env.max_path_length = 10**9

    def _show_goal(self) -> None:
        model = self._env.model
        for name, position in self._env._target_site_config:  # noqa: SLF001
            model.site(name).pos[:] = position
            model.site(name).size[0] = GOAL_RADIUS_M

    def _move_target(self, displacement: Float64Array) -> None:
        env = self._env
        hand = self.ee_position
        target = env.data.mocap_pos[0] + displacement
        lead = target - hand
        distance = float(np.linalg.norm(lead))
        if distance > MAX_LEAD_M:
            target = hand + lead * (MAX_LEAD_M / distance)
        env.data.mocap_pos[0] = np.clip(target, env.mocap_low, env.mocap_high)

    def _hold_target(self) -> None:
        self._env.data.mocap_pos[0] = self.ee_position

    def _physics(self) -> None:
        env = self._env
        env.data.mocap_quat[0] = (1, 0, 1, 0)
        effort = self._gripper_effort
        env.do_simulation([effort, -effort], n_frames=env.frame_skip)
        self._mujoco.mj_forward(self.model, env.data)  # positions of bodies lag a step otherwise

    def _succeeded(self) -> bool:
        env = self._env
        current = env._get_curr_obs_combined_no_goal()  # noqa: SLF001
        observation = np.hstack([current, current, env._target_pos])  # noqa: SLF001
        action = np.array([0.0, 0.0, 0.0, self._gripper_effort])
        _, info = env.evaluate_state(observation, action)
        return bool(info['success'])

    def _restore(self, state: ArmState) -> None:
        self._gripper_effort = state.gripper_effort
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        self._mujoco.mj_setState(self.model, self._env.data, state.physics, kind)
        self._mujoco.mj_forward(self.model, self._env.data)
        # Forward dynamics overwrites the solver's warm start, which is a part of the state.
        self._mujoco.mj_setState(self.model, self._env.data, state.physics, kind)
