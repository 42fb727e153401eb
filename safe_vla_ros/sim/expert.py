"""A scripted expert for LIBERO-Spatial: takes a bowl by its rim and puts it on the plate.

It sees where things are, which a policy does not. It has no memory: what it does follows from what
it sees, so it can be asked about any state, and it starts again by itself when a grasp fails.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.sim.tasks import BOWLS, PLATE

if TYPE_CHECKING:
    from safe_vla_ros.sim.arm import SimulatedPanda
    from safe_vla_ros.types import Float64Array

MAX_SPEED_M_S = 0.25
"""Largest speed it asks for; the arm cannot do more than 0.31 m/s."""

GAIN_PER_S = 2.5
LAG_S = 0.16
"""How far the hand is behind a moving set-point."""

GRASP_M = np.array([0.0, 0.05, 0.038])
"""Hand relative to the bowl: at the rim on the robot's left, away from cabinet and stove."""

DRAWER_GRASP_M = np.array([-0.024, 0.030, 0.046])
"""The same in the drawer, whose front would be in the outer finger's way."""

APPROACH_M = 0.09
"""Height above the grasp at which the hand comes near."""

CARRY_Z_M = 1.0
"""Height of a carried bowl's base over the table, which is at 0.9 m; clears every other bowl."""

OPEN_GAP_M = 0.07
CLOSED_GAP_M = 0.014
"""Distance of the fingers from which on the hand may be closing, and at which it holds a rim."""

GRIPPER_SPEED_M_S = 0.15
"""How fast a plan closes the fingers, slower than they are: it must not lift before they hold."""


@dataclass(frozen=True)
class TableView:
    """What the expert sees; metres and m/s in LIBERO's world frame.

    Attributes:
        hand: Between the finger tips, float64 [3].
        hand_velocity: float64 [3].
        gap_m: Distance of the fingers, 0..0.08.
        bowl: The asked bowl's base, float64 [3].
        other_bowl: The one that is not asked for, float64 [3].
        plate: float64 [3].
        cabinet: The cabinet's foot, float64 [3].
    """

    hand: Float64Array
    hand_velocity: Float64Array
    gap_m: float
    bowl: Float64Array
    other_bowl: Float64Array
    plate: Float64Array
    cabinet: Float64Array

    def asked_for_other(self) -> TableView:
        """Return the same table with the other bowl asked for."""
        return replace(self, bowl=self.other_bowl, other_bowl=self.bowl)


def look(arm: SimulatedPanda) -> TableView:
    """See the scene as it is."""
    scene = arm.scene
    first, second = scene.gripper_positions
    return TableView(
        hand=arm.ee_position,
        hand_velocity=np.array(scene.controller.ee_pos_vel),
        gap_m=float(first - second),
        bowl=scene.position_of(BOWLS[int(arm.task.other_bowl)]),
        other_bowl=scene.position_of(BOWLS[int(not arm.task.other_bowl)]),
        plate=scene.position_of(PLATE),
        cabinet=scene.position_of('wooden_cabinet_1'),
    )


def act(view: TableView) -> tuple[Float64Array, float]:
    """Return what to do now: velocity float64 [3] in m/s, and the gripper's opening 0 or 1."""
    if _is_delivered(view):
        return _move(np.array([0.0, 0.0, 0.1])), 1.0
    miss = view.bowl + _grasp(view) - view.hand
    sideways, height = float(np.hypot(*miss[:2])), abs(float(miss[2]))
    tolerance = 0.04 if view.gap_m < OPEN_GAP_M else 0.012
    if sideways < tolerance and height < tolerance:
        if view.gap_m > CLOSED_GAP_M:
            return _move(miss), 0.0
        return _carry(view), 0.0
    above = APPROACH_M * min(1.0, max(0.0, sideways - 0.01) / 0.02)
    return _move(miss + np.array([0.0, 0.0, above])), 1.0


def plan(
    view: TableView, steps: int, *, period_s: float = 0.05
) -> tuple[Float64Array, Float64Array]:
    """Return what the expert would do from a state on, without physics: a held bowl follows.

    Args:
        view: Where the plan starts.
        steps: Actions to plan.
        period_s: Duration of an action, seconds.

    Returns:
        Displacements float64 [steps, 3] in metres and gripper openings float64 [steps].
    """
    translation, openings = np.zeros((steps, 3)), np.zeros(steps)
    for index in range(steps):
        velocity, opening = act(view)
        translation[index], openings[index] = velocity * period_s, opening
        view = _after(view, velocity, opening, period_s)
    return translation, openings


def _grasp(view: TableView) -> Float64Array:
    """Return where the hand takes the bowl or, with a closing hand, where it may have taken it."""
    if view.gap_m < OPEN_GAP_M:
        return min(
            (GRASP_M, DRAWER_GRASP_M),
            key=lambda grasp: float(np.linalg.norm(view.bowl + grasp - view.hand)),
        )
    height = float(view.bowl[2] - view.cabinet[2])
    return DRAWER_GRASP_M if 0.13 < height < 0.19 and _is_over_cabinet(view) else GRASP_M


def _carry(view: TableView) -> Float64Array:
    x, y = (view.plate - view.bowl)[:2]
    distance = float(np.hypot(x, y))
    if distance < 0.015:
        return _move(np.array([x, y, view.plate[2] - 0.01 - view.bowl[2]]))
    rise = _clear_z(view) - view.bowl[2]
    if rise > 0.02:
        return _move(np.array([0.0, 0.0, rise + 0.03]))
    return _move(np.array([x, y, rise if distance > 0.05 else max(rise, -0.05)]))


def _clear_z(view: TableView) -> float:
    """Return how high the bowl's base must be here: higher over the cabinet."""
    if view.bowl[2] > CARRY_Z_M and _is_over_cabinet(view):
        return float(view.cabinet[2]) + 0.26
    return CARRY_Z_M


def _is_over_cabinet(view: TableView) -> bool:
    x, y = (view.bowl - view.cabinet)[:2]
    return bool(abs(x) < 0.22 and y < 0.19)


def _is_delivered(view: TableView) -> bool:
    beside = float(np.hypot(*(view.bowl - view.plate)[:2]))
    return beside < 0.025 and -0.01 < float(view.bowl[2] - view.plate[2]) < 0.012


def _move(displacement: Float64Array) -> Float64Array:
    velocity = GAIN_PER_S * displacement
    speed = float(np.linalg.norm(velocity))
    return velocity * min(1.0, MAX_SPEED_M_S / max(speed, 1e-9))


def _after(view: TableView, velocity: Float64Array, opening: float, period_s: float) -> TableView:
    share = 1.0 - float(np.exp(-period_s / LAG_S))
    hand_velocity = view.hand_velocity + share * (velocity - view.hand_velocity)
    moved = 0.5 * (view.hand_velocity + hand_velocity) * period_s
    held = opening < 0.5 and view.gap_m <= CLOSED_GAP_M
    change = GRIPPER_SPEED_M_S * period_s * (1.0 if opening >= 0.5 else -1.0)
    return replace(
        view,
        hand=view.hand + moved,
        hand_velocity=hand_velocity,
        gap_m=float(np.clip(view.gap_m + change, 0.005, 0.08)),
        bowl=view.bowl + moved if held else view.bowl,
    )
