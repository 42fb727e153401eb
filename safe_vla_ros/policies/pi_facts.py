"""What a directory of pi0 or pi0.5 says, whichever format says it."""

from __future__ import annotations

from dataclasses import dataclass

from safe_vla_ros.policies.pi_statistics import Affine


@dataclass(frozen=True)
class PiFacts:
    """Everything small about a checkpoint.

    Attributes:
        kind: ``pi0`` or ``pi05``.
        state: Normalisation of the state [P].
        actions: Normalisation of the actions [A].
        state_width: Numbers that a state is padded to, where the model takes it as numbers.
        action_width: Columns that the model denoises; the first A are the actions.
        chunk_size: T.
        execute_steps: Actions that the checkpoint means to be played; None when it does not say.
        num_steps: Denoising steps.
        prompt_length: Most tokens of the prompt.
        camera_slots: Names of the cameras in the model's order, the empty ones left out.
        image_size: Side of the square image, pixels; None leaves it to the weights.
        action_names: Names of the action columns, where the checkpoint has them.
        statistics: Names of the data sets with statistics, where there is a choice.
        periods: Shortest and longest period of the time embedding.
    """

    kind: str
    state: Affine
    actions: Affine
    state_width: int
    action_width: int
    chunk_size: int
    execute_steps: int | None
    num_steps: int
    prompt_length: int
    camera_slots: tuple[str, ...]
    image_size: int | None
    action_names: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()
    periods: tuple[float, float] = (4e-3, 4.0)
