"""The scripted expert as a policy, so that demonstrations run through the same playback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.pruning import EpisodeState, make_episode
from safe_vla_ros.sim.arm import GRIPPER_JOINTS
from safe_vla_ros.sim.expert import MAX_SPEED_M_S, plan
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.scene import CONTROL_PERIOD_S
from safe_vla_ros.types import ActionChunk, PolicySpec, PruningRecord

if TYPE_CHECKING:
    from safe_vla_ros.sim.expert import TableView
    from safe_vla_ros.types import (
        EpisodeMemory,
        Float64Array,
        Observation,
        PruningSettings,
    )

CHUNK_SIZE = 8
NUM_LAYERS = 2
"""The expert has no decoder; the fewest layers with which pruning settings are valid."""

EXECUTE_STEPS = 4
PROPRIO_LAYOUT = ('ee_position', 'ee_axis_angle_down', 'gripper_joints')
LINEAR_SCALE_M = round(MAX_SPEED_M_S * CONTROL_PERIOD_S, 9)
"""Largest displacement of one action: metres per model unit of the policy that learns from it."""

EXPERT_SPEC = PolicySpec(
    name='expert',
    kind='expert',
    cameras=tuple(CAMERA_SIZES_PX),
    num_cameras=len(CAMERA_SIZES_PX),
    chunk_size=CHUNK_SIZE,
    num_layers=NUM_LAYERS,
    action_period_s=CONTROL_PERIOD_S,
    execute_steps=EXECUTE_STEPS,
    proprio_layout=PROPRIO_LAYOUT,
    linear_scale_m=LINEAR_SCALE_M,
    angular_scale_rad=1.0,
    rotation='axis_angle',
    frame='base',
    gripper_open_value=1.0,
    gripper_closed_value=-1.0,
    gripper_joint_names=GRIPPER_JOINTS,
    limits={'max_linear_speed': 0.3, 'max_linear_accel': 2.0},
    pruning={'layer': NUM_LAYERS - 1},
)
"""What the expert says about itself; the policy that learns from it says the same."""


class ExpertPolicy:
    """Sees where things are; with noise it shows how to recover.

    The noise is a Gaussian on every displacement and, now and then, a kick: one random displacement
    for a few actions. Labels never have it; they come from ``plan``.
    """

    def __init__(self, *, noise: float, seed: int) -> None:
        """Make the expert of an episode.

        Args:
            noise: Standard deviation as a fraction of the largest displacement.
            seed: Seed of the noise.
        """
        self._noise = noise
        self._random = np.random.default_rng(seed)
        self._views: dict[float, TableView] = {}

    def see(self, stamp_s: float, view: TableView) -> None:
        """Remember the state in which the images of a stamp were taken."""
        self._views[stamp_s] = view

    def plan(self, stamp_s: float) -> tuple[Float64Array, Float64Array]:
        """Return the clean plan from the state of a stamp.

        Returns:
            Displacements float64 [8, 3] in metres and gripper openings float64 [8].

        Raises:
            KeyError: Nothing was seen at that time.
        """
        return plan(self._views[stamp_s], CHUNK_SIZE, period_s=CONTROL_PERIOD_S)

    @property
    def spec(self) -> PolicySpec:
        """What collecting, training and the node must agree on."""
        return EXPERT_SPEC

    def new_episode(self) -> EpisodeState:
        """Return a memory that the expert does not use."""
        return make_episode()

    def infer(
        self, observation: Observation, memory: EpisodeMemory, pruning: PruningSettings
    ) -> ActionChunk:
        """Plan from the state in which the observation's images were taken."""
        del memory, pruning
        translation, opening = self.plan(observation.stamp_s)
        if self._noise:
            translation = translation + self._random.normal(
                0.0, self._noise * LINEAR_SCALE_M, translation.shape
            )
            if self._random.random() < 0.12:
                start = self._random.integers(1, 4)
                kick = self._random.normal(0.0, 0.8 * LINEAR_SCALE_M, 3)
                translation[start : start + self._random.integers(2, 5)] = kick
        record = PruningRecord('none', {}, {}, False, None, None, 0.0, {}, {}, {}, 0, 0)
        return ActionChunk(translation, np.zeros((CHUNK_SIZE, 3)), opening, record)
