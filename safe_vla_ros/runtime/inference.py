"""One inference as values: what goes in, what comes out, and what became of it."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from safe_vla_ros.errors import NonFiniteError, ObservationError, shortened
from safe_vla_ros.runtime.geometry import Pose
from safe_vla_ros.runtime.image_decoding import AnyImage, Fallback, decode_image
from safe_vla_ros.runtime.playback import NO_SEAM, Seam
from safe_vla_ros.runtime.proprio import assemble_proprio
from safe_vla_ros.types import (
    ActionChunk,
    EpisodeMemory,
    MessageHeader,
    Observation,
    Policy,
    PruningRecord,
    PruningSettings,
    UInt8Array,
    oldest_header,
)

LARGEST_MOVE = 100.0
"""Metres or radians in one action that no scaling of a sane policy reaches."""


@dataclass(frozen=True)
class InputSnapshot:
    """The newest inputs, as they were taken for one inference.

    Attributes:
        images: Undecoded images by camera in the model's order.
        image_headers: Their headers.
        pose: Pose of the end effector, or None.
        joints: Joint positions by name.
        instruction: The task in words.
    """

    images: Mapping[str, AnyImage]
    image_headers: Mapping[str, MessageHeader]
    pose: Pose | None
    joints: Mapping[str, float]
    instruction: str

    @property
    def header(self) -> MessageHeader:
        """Header of the oldest image; its stamp is the observation's."""
        return oldest_header(self.image_headers)

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
        return Observation(images, self.instruction, proprio, self.image_headers)


@dataclass(frozen=True)
class InferenceJob:
    """An inference that is due.

    Attributes:
        inputs: What the observation is to be made from.
        memory: The episode's memory.
        pruning: Settings for this inference.
        started_s: The clock's time when it began.
        epoch, generation: What must still hold for the chunk to be played.
        episode: Number of the episode, from 1.
        step: Number of the inference in its episode, from 0.
        warm_up: Whether it is the first since activation; not counted in the latencies.
    """

    inputs: InputSnapshot
    memory: EpisodeMemory
    pruning: PruningSettings
    started_s: float
    epoch: int
    generation: int
    episode: int
    step: int
    warm_up: bool

    @property
    def header(self) -> MessageHeader:
        """Header of the oldest image; its stamp is the observation's."""
        return self.inputs.header

    @property
    def stamp_s(self) -> float:
        """The observation's stamp, seconds."""
        return self.header.stamp_s


@dataclass(frozen=True)
class InferenceOutcome:
    """What the policy made of a job.

    Attributes:
        job: The job.
        observation: What the policy saw; None when it could not be put together.
        chunk: The plan, finite and well-formed, or None.
        error: Why there is none; empty otherwise.
        non_finite: Whether it was refused because it, or what it was made from, is not finite.
        details: The traceback, for a log; empty without one.
    """

    job: InferenceJob
    observation: Observation | None
    chunk: ActionChunk | None
    error: str = ''
    non_finite: bool = False
    details: str = ''

    @property
    def record(self) -> PruningRecord | None:
        """What pruning did; None without a chunk."""
        return None if self.chunk is None else self.chunk.record


@dataclass(frozen=True)
class InferenceReport:
    """What became of an inference.

    Attributes:
        outcome: What the policy made of it.
        accepted: Whether its chunk is being played.
        why_not: Why it is not; empty when accepted.
        latency_s: From the begin to the finish, by the clock, seconds.
        observation_age_s: Age of the observation at the finish, seconds.
        seam: How the chunk met what was being played; ``NO_SEAM`` when it is not played.
        failures: Failures in a row, this one included.
    """

    outcome: InferenceOutcome
    accepted: bool
    why_not: str
    latency_s: float
    observation_age_s: float
    seam: Seam = NO_SEAM
    failures: int = 0

    @property
    def job(self) -> InferenceJob:
        """What was due."""
        return self.outcome.job


def infer(
    policy: Policy,
    job: InferenceJob,
    *,
    layout: tuple[str, ...],
    gripper_joint_names: tuple[str, ...],
    fallback: Fallback | None,
) -> InferenceOutcome:
    """Make the observation and run the policy on it; every error becomes part of the outcome.

    Args:
        policy: Turns the observation into a chunk.
        job: What is due.
        layout: Parts of the proprioception; empty when the policy takes none.
        gripper_joint_names: Joints that ``gripper_joints`` stands for.
        fallback: Decodes image encodings that this package does not.
    """
    try:
        observation = job.inputs.observe(layout, gripper_joint_names, fallback)
    except ObservationError as error:
        return InferenceOutcome(job, None, None, shortened(str(error)))
    except Exception as error:
        return _failed(job, None, error)
    try:
        chunk = policy.infer(observation, job.memory, job.pruning)
        problem = _shape_problem(chunk) or _size_problem(chunk)
        finite = chunk.is_finite()
    except NonFiniteError as error:
        text = shortened(str(error))
        return InferenceOutcome(job, observation, None, text, True, traceback.format_exc())
    except Exception as error:
        return _failed(job, observation, error)
    if not finite:
        problem = 'the chunk holds actions that are not finite'
    if problem:
        return InferenceOutcome(job, observation, None, problem, not finite)
    return InferenceOutcome(job, observation, chunk)


def _failed(
    job: InferenceJob, observation: Observation | None, error: Exception
) -> InferenceOutcome:
    text = shortened(f'{type(error).__name__}: {error}')
    details = ''.join(traceback.format_exception(error))
    return InferenceOutcome(job, observation, None, text, False, details)


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
