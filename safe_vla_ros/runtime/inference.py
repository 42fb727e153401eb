"""One inference as values: what goes in, what comes out, and what became of it."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safe_vla_ros.errors import NonFiniteError, ObservationError, shortened
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.image_decoding import AnyImage, Fallback, decode_image
from safe_vla_ros.runtime.proprio import assemble_proprio
from safe_vla_ros.types import (
    ActionChunk,
    EpisodeMemory,
    Observation,
    Policy,
    PruningRecord,
    PruningSettings,
    UInt8Array,
)

LARGEST_MOVE = 100.0
"""Metres or radians in one action that no scaling of a sane policy reaches."""


@dataclass(frozen=True)
class Snapshot:
    """The newest inputs, as they were taken for one inference.

    Attributes:
        images: Undecoded images by camera in the model's order.
        image_stamps_s: Their header stamps, seconds.
        pose: Pose of the end effector, or None.
        joints: Joint positions by name.
        instruction: The task in words.
    """

    images: Mapping[str, AnyImage]
    image_stamps_s: Mapping[str, float]
    pose: Pose | None
    joints: Mapping[str, float]
    instruction: str

    @property
    def stamp_s(self) -> float:
        """The oldest image's stamp, seconds."""
        return min(self.image_stamps_s.values())

    def observe(
        self,
        layout: tuple[str, ...],
        gripper_joint_names: tuple[str, ...],
        fallback: Fallback | None,
    ) -> Observation:
        """Decode the images and put the observation together.

        Raises:
            ObservationError: An image or the proprioception cannot be used; names which.
        """
        images = {camera: _decode(camera, image, fallback) for camera, image in self.images.items()}
        proprio = None
        if layout:
            proprio = assemble_proprio(
                layout,
                pose=self.pose,
                joints=self.joints,
                gripper_joint_names=gripper_joint_names,
            )
        return Observation(images, self.instruction, proprio, self.image_stamps_s)


@dataclass(frozen=True)
class InferenceJob:
    """An inference that is due.

    Attributes:
        observation: What the policy shall see; None when it could not be put together.
        error: Why not; empty otherwise.
        memory: The episode's memory.
        pruning: Settings for this inference.
        stamp_s: The observation's stamp, seconds.
        started_s: The clock's time when it began.
        epoch, generation: What must still hold for the chunk to be played.
        episode: Number of the episode, from 1.
        step: Number of the inference in its episode, from 0.
        warm_up: Whether it is the first since activation.
    """

    observation: Observation | None
    error: str
    memory: EpisodeMemory
    pruning: PruningSettings
    stamp_s: float
    started_s: float
    epoch: int
    generation: int
    episode: int
    step: int
    warm_up: bool


@dataclass(frozen=True)
class InferenceOutcome:
    """What the policy made of a job.

    Attributes:
        job: The job.
        chunk: The plan, finite and well-formed, or None.
        error: Why there is none; empty otherwise.
        non_finite: Whether it was refused because it, or what it was made from, is not finite.
        details: The traceback, for a log; empty without an error of the policy.
    """

    job: InferenceJob
    chunk: ActionChunk | None
    error: str = ''
    non_finite: bool = False
    details: str = ''


@dataclass(frozen=True)
class InferenceReport:
    """What became of an inference.

    Attributes:
        accepted: Whether its chunk is being played.
        why_not: Why it is not; empty when accepted.
        error: The error that made it fail; empty when it was only late or overtaken.
        details: The traceback of the error, for a log.
        refused: Whether the chunk was refused because it is not finite.
        observation: What the policy saw, or None.
        chunk: The plan, or None.
        record: What pruning did, or None.
        observation_stamp_s: Stamp of the observation, seconds.
        episode: Number of the episode, from 1.
        step: Number of the inference in its episode, from 0.
        epoch: Epoch that it belongs to.
        warm_up: Whether it was the first since activation; not counted in the latencies.
        latency_s: From the begin to the finish, by the clock, seconds.
        observation_age_s: Age of the observation at the finish, seconds.
        skipped_actions: Actions of the chunk that had been played since the observation.
        seam_jump_m_s, seam_jump_rad_s: Step between the old and the new plan's twist at equal
            action time, before blending; None when nothing was being played.
        failures: Failures in a row, this one included.
    """

    accepted: bool
    why_not: str
    error: str
    details: str
    refused: bool
    observation: Observation | None
    chunk: ActionChunk | None
    record: PruningRecord | None
    observation_stamp_s: float
    episode: int
    step: int
    epoch: int
    warm_up: bool
    latency_s: float
    observation_age_s: float
    skipped_actions: float = 0.0
    seam_jump_m_s: float | None = None
    seam_jump_rad_s: float | None = None
    failures: int = 0


def infer(policy: Policy, job: InferenceJob) -> InferenceOutcome:
    """Run the policy on a job; every error becomes part of the outcome."""
    if job.observation is None:
        return InferenceOutcome(job, None, job.error)
    try:
        chunk = policy.infer(job.observation, job.memory, job.pruning)
        problem = _shape_problem(chunk) or _size_problem(chunk)
        finite = chunk.is_finite()
    except NonFiniteError as error:
        return InferenceOutcome(job, None, shortened(str(error)), True, traceback.format_exc())
    except Exception as error:
        text = shortened(f'{type(error).__name__}: {error}')
        return InferenceOutcome(job, None, text, False, traceback.format_exc())
    if not finite:
        return InferenceOutcome(job, None, 'the chunk holds actions that are not finite', True)
    if problem:
        return InferenceOutcome(job, None, problem)
    return InferenceOutcome(job, chunk)


def _decode(camera: str, image: AnyImage, fallback: Fallback | None) -> UInt8Array:
    try:
        return decode_image(image, fallback)
    except ObservationError as error:
        raise ObservationError(f"camera '{camera}': {error}") from error


def _size_problem(chunk: ActionChunk) -> str:
    largest = max(np.abs(chunk.translation_m).max(), np.abs(chunk.rotation_rad).max())
    if largest <= LARGEST_MOVE:
        return ''
    return f'the chunk moves by {largest:.3g} in one action; allowed is {LARGEST_MOVE:g} m or rad'


def _shape_problem(chunk: ActionChunk) -> str:
    shapes = [np.shape(part) for part in (chunk.translation_m, chunk.rotation_rad, chunk.gripper)]
    steps = len(chunk.gripper)
    if steps >= 1 and shapes == [(steps, 3), (steps, 3), (steps,)]:
        return ''
    return f'the chunk has shapes {shapes}; allowed are [T, 3], [T, 3] and [T] with T at least 1'
