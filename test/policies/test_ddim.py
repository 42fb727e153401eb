"""Sampling finds what the noise hides, whatever the number of steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.ddim import allowed_step_counts, make_schedule, sample

SHAPE = (16, 7)
CONDITION, UNCONDITION = torch.ones(1, 3), torch.zeros(1, 3)


def noise_around(clean: Tensor, steps: int, asked: list[Tensor] | None = None):
    """A model that knows the clean actions, so it can tell the noise exactly."""
    signals = {step.timestep: step.signal for step in make_schedule(steps)}

    def denoise(actions: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        if asked is not None:
            asked.append(condition)
        signal = signals[int(timestep[0])]
        return (actions - signal**0.5 * clean) / (1 - signal) ** 0.5

    return denoise


@pytest.mark.parametrize('steps', allowed_step_counts())
def test_a_model_that_knows_the_actions_leads_to_them(steps: int) -> None:
    clean = torch.linspace(-1, 1, 112).view(SHAPE)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    found = sample(
        noise_around(clean, steps),
        noise,
        CONDITION,
        uncondition=UNCONDITION,
        guidance=1.5,
        steps=steps,
    )
    torch.testing.assert_close(found, clean, atol=2e-4, rtol=0)


def test_ten_steps_are_a_tenth_of_the_hundred_apart() -> None:
    schedule = make_schedule(10)
    assert [step.timestep for step in schedule] == list(range(90, -1, -10))
    assert schedule[-1].next_signal == 1.0
    signals = [step.signal for step in schedule]
    assert signals == sorted(signals)
    assert [step.next_signal for step in schedule[:-1]] == signals[1:]


@pytest.mark.parametrize(('guidance', 'rows'), [(1.5, 2), (1.0, 1)])
def test_without_guidance_nothing_is_asked_twice(guidance: float, rows: int) -> None:
    asked: list[Tensor] = []
    sample(
        noise_around(torch.zeros(SHAPE), 10, asked),
        torch.ones(SHAPE),
        CONDITION,
        uncondition=UNCONDITION,
        guidance=guidance,
        steps=10,
    )
    assert [len(condition) for condition in asked] == [rows] * 10


def test_guidance_goes_beyond_the_condition() -> None:
    def denoise(actions: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        return condition.mean(1)[:, None, None].expand(-1, *SHAPE)

    seen = []
    sample(
        denoise,
        torch.zeros(SHAPE),
        CONDITION,
        uncondition=UNCONDITION,
        guidance=1.5,
        steps=2,
        observe=seen.append,
    )
    assert torch.equal(seen[0].noise, torch.full(SHAPE, 1.5))


@pytest.mark.parametrize('steps', [0, 1, 11, 101])
def test_steps_at_unequal_distances_are_refused(steps: int) -> None:
    with pytest.raises(CheckpointError, match=f'ddim_steps is {steps}, allowed is one of 2, 3'):
        make_schedule(steps)
