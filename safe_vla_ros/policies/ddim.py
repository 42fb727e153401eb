"""Deterministic sampling from a diffusion model with guidance (DDIM, arXiv 2010.02502).

The noise follows a squared cosine over 100 steps (arXiv 2102.09672), of which a few at equal
distances are taken, the last one first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from safe_vla_ros.errors import CheckpointError

DIFFUSION_STEPS = 100
_LARGEST_BETA = 0.999
_COSINE_OFFSET = 0.008

Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From noisy actions [B, T, A], timesteps int64 [B] and conditions [B, D] to noise [B, T, A]."""


@dataclass(frozen=True)
class DdimStep:
    """One step of a schedule.

    Attributes:
        timestep: Of the 100, as the model is told.
        signal: Share of the clean sample in the input: the cumulative product of 1 - beta.
        next_signal: The same in the output; 1 after the last step.
    """

    timestep: int
    signal: float
    next_signal: float


@dataclass(frozen=True)
class DenoisedStep:
    """What happened in one step, for checks against other implementations.

    Attributes:
        timestep: Of the 100, as the model is told.
        actions: Noisy actions that entered it [T, A].
        conditional: Noise told with the condition [T, A].
        unconditional: Noise told without it [T, A]; None without guidance.
        noise: What was taken away [T, A].
    """

    timestep: int
    actions: Tensor
    conditional: Tensor
    unconditional: Tensor | None
    noise: Tensor


def _taken(distance: int) -> range:
    return range(0, DIFFUSION_STEPS, distance)


def allowed_step_counts() -> tuple[int, ...]:
    """Return the numbers of steps that lie at equal distances among the 100."""
    return tuple(sorted({len(_taken(distance)) for distance in range(1, DIFFUSION_STEPS)}))


def check_steps(steps: object, where: str) -> None:
    """Refuse a number of steps that no equal distance gives.

    Raises:
        CheckpointError: It is not one of ``allowed_step_counts``; the sentence begins with
            ``where``.
    """
    if type(steps) is not int or steps not in allowed_step_counts():
        allowed = ', '.join(map(str, allowed_step_counts()))
        msg = f'{where} is {steps!r}, allowed is one of {allowed}'
        raise CheckpointError(msg)


@lru_cache(maxsize=8)
def make_schedule(steps: int) -> tuple[DdimStep, ...]:
    """Return the steps in the order in which they are run.

    Args:
        steps: One of ``allowed_step_counts``.

    Raises:
        CheckpointError: No equal distance gives so many.
    """
    check_steps(steps, 'ddim_steps')
    distance = next(n for n in range(1, DIFFUSION_STEPS) if len(_taken(n)) == steps)
    taken = _taken(distance)
    edges = np.arange(DIFFUSION_STEPS + 1, dtype=np.float64) / DIFFUSION_STEPS
    bar = np.cos((edges + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2) ** 2
    signal = np.cumprod(1.0 - np.minimum(1.0 - bar[1:] / bar[:-1], _LARGEST_BETA))
    after = [1.0, *(float(signal[timestep]) for timestep in taken)]
    made = [
        DdimStep(timestep, float(signal[timestep]), after[place])
        for place, timestep in enumerate(taken)
    ]
    return tuple(reversed(made))


def sample(
    denoise: Denoiser,
    noise: Tensor,
    condition: Tensor,
    *,
    uncondition: Tensor | None,
    guidance: float,
    steps: int,
    observe: Callable[[DenoisedStep], None] | None = None,
) -> Tensor:
    """Turn noise into actions.

    Guidance (arXiv 2207.12598) runs every step with and without the condition, in one batch.

    Args:
        denoise: The model.
        noise: Standard normal [T, A], on the model's device.
        condition: [1, D].
        uncondition: What stands for no condition [1, D]; None where there is no guidance.
        guidance: s in ``without + s (with - without)``; 1 or less runs no guidance.
        steps: One of ``allowed_step_counts``.
        observe: Called with every step.

    Returns:
        Actions [T, A], not clipped.
    """
    conditions = condition
    if uncondition is not None and guidance > 1.0:
        conditions = torch.cat([condition, uncondition])
    actions = noise
    for step in make_schedule(steps):
        timestep = torch.full((len(conditions),), step.timestep, device=noise.device)
        told = denoise(actions.expand(len(conditions), -1, -1), timestep, conditions)
        conditional = told[0]
        unconditional = told[1] if len(told) > 1 else None
        if unconditional is None:
            taken = conditional
        else:
            taken = unconditional + guidance * (conditional - unconditional)
        if observe is not None:
            observe(DenoisedStep(step.timestep, actions, conditional, unconditional, taken))
        actions = _step(actions, taken, step)
    return actions


def _step(actions: Tensor, noise: Tensor, step: DdimStep) -> Tensor:
    """Take the noise away, then put the next step's share of it back."""
    grown, share = (1.0 / step.signal) ** 0.5, (1.0 / step.signal - 1.0) ** 0.5
    clean = grown * actions - share * noise
    direction = (grown * actions - clean) / share
    mixed: Tensor = step.next_signal**0.5 * clean + (1.0 - step.next_signal) ** 0.5 * direction
    return mixed
