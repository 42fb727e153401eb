"""What a pi0 or pi0.5 checkpoint cannot tell: the group ``pi`` of its ``policy.yaml``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from safe_vla_ros.errors import CheckpointError, shortened
from safe_vla_ros.policies.spec import (
    POLICY_FILE,
    check_integer,
    read_policy_group,
)

if TYPE_CHECKING:
    from pathlib import Path

BILINEAR, ANTIALIASED = 'bilinear', 'antialiased'
EXACT_TIME, ADDED_TIME = 'exact', 'added'
END_EFFECTOR, JOINTS = 'end_effector', 'joints'
BLACK, BELOW_BLACK = -1, -3
MOST_STEPS = 100
LONGEST_PROMPT = 4096
"""Tokens; published models have 48 and 200."""

_CHOICES: dict[str, tuple[object, ...]] = {
    'vision_dtype': ('float32', 'model'),
    'action_space': (END_EFFECTOR, JOINTS),
    'image_padding': (BLACK, BELOW_BLACK),
    'image_resize': (BILINEAR, ANTIALIASED),
    'time_rule': (EXACT_TIME, ADDED_TIME),
    'pad_state': (True, False),
    'clean_prompt': (True, False),
    'state_in_prompt': (True, False),
}


@dataclass(frozen=True)
class PiOptions:
    """What the files of a checkpoint leave open. None takes what the format's own code does.

    Attributes:
        tokenizer: Where ``tokenizer.json`` lies: a directory, relative to the checkpoint or
            absolute, or ``hf:org/name@<40-hex commit>``, the only one that downloads.
        vision_heads: Attention heads of SigLIP, which its weights do not show; None knows those of
            So400m.
        vision_dtype: ``float32`` runs the vision tower and its projector in float32 in any case, as
            LeRobot does since 0.5; ``model`` in the model's dtype.
        action_space: ``end_effector`` when the actions are displacements of the end effector and a
            gripper, ``joints`` when not; None takes 4 or 7 columns for the former unless their
            names speak of joints.
        camera_slots: Names of the cameras in the order of the model's inputs; None takes the
            checkpoint's order.
        pad_state: Whether pi0.5's prompt holds the state with zeros up to the model's width, as
            LeRobot 0.4 wrote it.
        image_padding: Value around an image that is not square: -1 is black; LeRobot 0.4 had -3.
        image_resize: ``bilinear`` without antialiasing on numbers (LeRobot), ``antialiased`` on
            bytes (openpi's client).
        time_rule: ``exact`` takes every time of the denoising from its number (LeRobot), ``added``
            sums the steps up in float32 (openpi).
        clean_prompt: Whether pi0 strips the instruction, replaces ``_`` and newlines by blanks and
            encodes the last newline alone (openpi), or only sees to a newline at its end (LeRobot).
        state_in_prompt: Whether pi0.5's prompt holds the state; openpi's ``pi05_libero`` does not.
        prompt_length: Most tokens of the prompt; the rest is cut.
        num_steps: Denoising steps.
        saliency_steps: Denoising steps whose attention is read for pruning, from 0; None is the
            last.
    """

    tokenizer: str = '.'
    vision_heads: int | None = None
    vision_dtype: str = 'float32'
    action_space: str | None = None
    camera_slots: tuple[str, ...] | None = None
    pad_state: bool = False
    image_padding: int = BLACK
    image_resize: str | None = None
    time_rule: str | None = None
    clean_prompt: bool | None = None
    state_in_prompt: bool = True
    prompt_length: int | None = None
    num_steps: int | None = None
    saliency_steps: tuple[int, ...] | None = None


def read_options(directory: Path) -> PiOptions:
    """Read the group ``pi`` of ``policy.yaml``; defaults where there is none.

    Raises:
        CheckpointError: A key or a value is not allowed.
    """
    names = [field.name for field in fields(PiOptions)]
    group = dict(read_policy_group(directory, 'pi', names))
    where = f'{directory / POLICY_FILE}: pi'
    for name, allowed in _CHOICES.items():
        if name in group and not _is_one_of(group[name], allowed):
            words = ' or '.join(str(word).lower() for word in allowed)
            msg = f'{where}.{name} is {shortened(repr(group[name]))}, allowed is {words}'
            raise CheckpointError(msg)
    ranges = {
        'vision_heads': (1, 1024),
        'prompt_length': (1, LONGEST_PROMPT),
        'num_steps': (1, MOST_STEPS),
    }
    for name, (lowest, highest) in ranges.items():
        if name in group:
            check_integer(group[name], lowest, highest, f'{where}.{name}')
    if 'tokenizer' in group and not isinstance(group['tokenizer'], str):
        msg = (
            f'{where}.tokenizer is {group["tokenizer"]!r}, allowed is a directory or hf:...@commit'
        )
        raise CheckpointError(msg)
    if 'camera_slots' in group:
        slots = _list(group['camera_slots'], f'{where}.camera_slots')
        if not all(isinstance(slot, str) for slot in slots) or len(set(slots)) != len(slots):
            msg = f'{where}.camera_slots is {slots}, allowed are different names'
            raise CheckpointError(msg)
        group['camera_slots'] = tuple(slots)
    if 'saliency_steps' in group:
        steps = _list(group['saliency_steps'], f'{where}.saliency_steps')
        for step in steps:
            check_integer(step, 0, MOST_STEPS - 1, f'{where}.saliency_steps')
        group['saliency_steps'] = tuple(sorted(set(steps)))
    return PiOptions(**group)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        msg = f'{where} is {shortened(repr(value))}, allowed is a list'
        raise CheckpointError(msg)
    return value


def _is_one_of(value: object, allowed: tuple[object, ...]) -> bool:
    return any(type(value) is type(word) and value == word for word in allowed)
