"""What happens to robots: things that a study does to an episode while it runs.

Each starts from an arm that is just reset, does its part as a bystander of the episode, and is
undone afterwards, because the model outlives the episode.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from safe_vla_ros.sim.rendering import CAMERAS, Shape
from safe_vla_ros.sim.tasks import BOWLS, get_task, other_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
    from safe_vla_ros.sim.arm import SimulatedPanda
    from safe_vla_ros.types import Float64Array


class Disturbance(Protocol):
    """A bystander that can take back what it did."""

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        """Do what is due; see ``rollout.Bystander``."""
        ...

    def undo(self) -> None:
        """Leave the model as it was; the scene's state belongs to the next ``reset``."""
        ...


class _BowlMoved:
    """Somebody pushes the asked bowl aside while the arm is on its way; no hand is seen.

    It goes 6 cm within half a second, to where most room is, and stays upright on what it stands
    on. It is left alone once the hand is near.
    """

    START_S, DURATION_S = 0.6, 0.5
    DISTANCE_M = 0.06
    NEAR_M = 0.1
    ROOM_M: Mapping[bool, float] = MappingProxyType({False: 0.1, True: 0.2})
    """Radius of an object and, at True, of a fixture."""

    def __init__(self, arm: SimulatedPanda, seed: int) -> None:
        scene = arm.scene
        self._bowl = BOWLS[int(arm.task.other_bowl)]
        self._start = scene.position_of(self._bowl)
        others = [
            (scene.position_of(name)[:2], self.ROOM_M[name in scene.fixture_names])
            for name in scene.object_names
            if name != self._bowl
        ]
        first = np.random.default_rng(seed).uniform(0.0, 2.0 * math.pi)
        ways = [
            self.DISTANCE_M * np.array([math.cos(angle), math.sin(angle), 0.0])
            for angle in first + np.linspace(0.0, 2.0 * math.pi, 16, endpoint=False)
        ]

        def room(way: Float64Array) -> float:
            there = (self._start + way)[:2]
            return min(float(np.linalg.norm(there - at)) - radius for at, radius in others)

        self._way = max(ways, key=room)
        self._let_go = False

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        del runtime
        share = (elapsed_s - self.START_S) / self.DURATION_S
        if not 0.0 <= share <= 1.0 or self._let_go:
            return
        now = arm.scene.position_of(self._bowl)
        if float(np.linalg.norm(arm.ee_position - now)) < self.NEAR_M:
            self._let_go = True
            return
        smooth = share * share * (3.0 - 2.0 * share)
        arm.scene.place(self._bowl, self._start + smooth * self._way)

    def undo(self) -> None:
        pass


class _CameraTurned:
    """Turns the fixed camera about its own axes."""

    def __init__(self, arm: SimulatedPanda, seed: int) -> None:
        self._quaternion = arm.model.cam_quat[arm.model.camera(CAMERAS['agentview']).id]
        self._straight = np.array(self._quaternion)
        self._phases = np.random.default_rng(seed).uniform(0.0, 2.0 * math.pi, 3)

    def turn(self, angles_rad: Float64Array) -> None:
        """Turn by a small rotation vector in the camera's frame, float64 [3], from straight."""
        angle = float(np.linalg.norm(angles_rad))
        axis = angles_rad / max(angle, 1e-12)
        turned = np.array([math.cos(angle / 2.0), *(math.sin(angle / 2.0) * axis)])
        self._quaternion[:] = _multiplied(self._straight, turned)

    def undo(self) -> None:
        self._quaternion[:] = self._straight


class _CameraShaken(_CameraTurned):
    """The fixed camera shakes by up to 0.5 degrees about each axis, at 4, 5.5 and 7 Hz."""

    AMPLITUDE_RAD = math.radians(0.5)
    FREQUENCIES_HZ = np.array([4.0, 5.5, 7.0])

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        del arm, runtime
        angles = 2.0 * math.pi * self.FREQUENCIES_HZ * elapsed_s + self._phases
        self.turn(self.AMPLITUDE_RAD * np.sin(angles))


class _CameraPanned(_CameraTurned):
    """The fixed camera pans by 3 degrees in as many seconds, to the one or the other side."""

    START_S, DURATION_S = 0.5, 3.0
    ANGLE_RAD = math.radians(3.0)

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        del arm, runtime
        share = min(1.0, max(0.0, (elapsed_s - self.START_S) / self.DURATION_S))
        side = 1.0 if self._phases[0] < math.pi else -1.0
        self.turn(np.array([0.0, side * share * self.ANGLE_RAD, 0.0]))


class _LightsChanged:
    """After a second most of the light goes out, and what is left is warmer."""

    START_S = 1.0
    COLOUR = np.array([0.65, 0.55, 0.45])
    """What is left of red, green and blue."""

    def __init__(self, arm: SimulatedPanda, seed: int) -> None:
        del seed
        headlight = arm.model.vis.headlight
        self._lights = (arm.model.light_diffuse, headlight.diffuse, headlight.ambient)
        self._before = [np.array(light) for light in self._lights]

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        del arm, runtime
        if elapsed_s >= self.START_S:
            for light, before in zip(self._lights, self._before, strict=True):
                light[:] = before * self.COLOUR

    def undo(self) -> None:
        for light, before in zip(self._lights, self._before, strict=True):
            light[:] = before


class _PersonPasses:
    """Somebody walks at 1 m/s between the fixed camera and the table, seen but not felt."""

    START_S = 0.5
    SPEED_M_S = 1.0
    X_M, FROM_Y_M = 0.38, 1.2
    """Line of the walk, and where it begins; it ends as far on the other side."""

    BODY: tuple[Shape, ...] = (
        Shape((0.0, 0.0, 0.45), (0.12, 0.17, 0.5), (0.13, 0.16, 0.3)),
        Shape((0.0, 0.0, 1.2), (0.14, 0.24, 0.36), (0.55, 0.2, 0.18)),
        Shape((0.0, 0.0, 1.64), (0.1, 0.09, 0.13), (0.75, 0.56, 0.46)),
    )
    """Legs, upper body and head; 1.77 m."""

    def __init__(self, arm: SimulatedPanda, seed: int) -> None:
        del seed
        self._arm = arm

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        del runtime
        y = self.FROM_Y_M - self.SPEED_M_S * (elapsed_s - self.START_S)
        if not -self.FROM_Y_M <= y <= self.FROM_Y_M:
            arm.shapes = ()
            return
        arm.shapes = tuple(
            Shape((self.X_M, y, part.centre[2]), part.half_axes, part.colour) for part in self.BODY
        )

    def undo(self) -> None:
        self._arm.shapes = ()


class _Stopped:
    """Permission to move is withdrawn for three seconds."""

    START_S, DURATION_S = 1.5, 3.0

    def __init__(self, arm: SimulatedPanda, seed: int) -> None:
        del arm, seed

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        del arm
        runtime.pause(self.START_S <= elapsed_s < self.START_S + self.DURATION_S)

    def undo(self) -> None:
        pass


class _InstructionChanged:
    """After a second the other bowl is asked for; from then on success is that it is placed."""

    START_S = 1.0

    def __init__(self, arm: SimulatedPanda, seed: int) -> None:
        del seed
        self._other = get_task(other_task(arm.task.name))

    def step(self, arm: SimulatedPanda, runtime: PolicyRuntime, elapsed_s: float) -> None:
        if elapsed_s >= self.START_S and arm.task != self._other:
            arm.ask(self._other.name)
            runtime.set_instruction(self._other.sentence)

    def undo(self) -> None:
        pass


DISTURBANCES: Mapping[str, Callable[[SimulatedPanda, int], Disturbance]] = MappingProxyType(
    {
        'bowl_moved': _BowlMoved,
        'camera_shaken': _CameraShaken,
        'camera_panned': _CameraPanned,
        'lights_changed': _LightsChanged,
        'person_passes': _PersonPasses,
        'stopped': _Stopped,
        'instruction_changed': _InstructionChanged,
    }
)
"""The stress set: by name, how to make one for an arm that is just reset, from a seed."""


def _multiplied(first: Float64Array, second: Float64Array) -> Float64Array:
    """Return the product of two quaternions, float64 [4] as w, x, y, z."""
    w, vector = first[0], first[1:]
    return np.array(
        [
            w * second[0] - vector @ second[1:],
            *(w * second[1:] + second[0] * vector + np.cross(vector, second[1:])),
        ]
    )
