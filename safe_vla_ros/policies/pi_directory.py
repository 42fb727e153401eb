"""A directory of pi0 or pi0.5, in LeRobot's or openpi's format, read without loading weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies import pi_lerobot, pi_openpi
from safe_vla_ros.policies.checkpoint import Checkpoint, open_checkpoint
from safe_vla_ros.policies.pi_facts import PiFacts
from safe_vla_ros.policies.pi_options import (
    ADDED_TIME,
    ANTIALIASED,
    BILINEAR,
    END_EFFECTOR,
    EXACT_TIME,
    JOINTS,
    PiOptions,
    read_options,
)
from safe_vla_ros.policies.pi_prompt import PiPromptEncoder, find_tokenizer
from safe_vla_ros.policies.pi_sizes import PiSizes, key_prefix, read_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

_END_EFFECTOR_COLUMNS = (4, 7)
_JOINT_WORDS = ('joint', '.pos', 'arm_')


@dataclass(frozen=True)
class PiDirectory:
    """An opened directory; everything but the weights has been read and checked.

    Attributes:
        checkpoint: Configuration and headers of the weights.
        facts: What the files say, the same for both formats.
        options: What they leave open, resolved: nothing is None but ``vision_heads``.
        sizes: Sizes of the network.
    """

    checkpoint: Checkpoint
    facts: PiFacts
    options: PiOptions
    sizes: PiSizes

    @property
    def drives_end_effector(self) -> bool:
        """Whether the actions are displacements of an end effector and a gripper."""
        return self.options.action_space == END_EFFECTOR

    @property
    def num_steps(self) -> int:
        """Denoising steps."""
        return self.options.num_steps or self.facts.num_steps

    def encoder(self) -> PiPromptEncoder:
        """Read the tokenizer.

        Raises:
            CheckpointError: It is missing, or does not fit the model.
        """
        facts, options = self.facts, self.options
        return PiPromptEncoder(
            find_tokenizer(self.checkpoint.path, options.tokenizer),
            vocabulary=self.sizes.prefix.vocab_size,
            length=options.prompt_length or facts.prompt_length,
            with_state=facts.kind == 'pi05' and options.state_in_prompt,
            # Without its state openpi writes pi0.5's prompt as pi0's.
            clean=bool(options.clean_prompt) or facts.kind == 'pi05',
            state_width=facts.state_width if options.pad_state else 0,
        )


def open_directory(
    path: Path, options: PiOptions | None = None, unnorm_key: str = ''
) -> PiDirectory:
    """Open a directory of pi0 or pi0.5 without loading weights.

    Args:
        path: The checkpoint directory.
        options: What its files leave open; read from ``policy.yaml`` when None.
        unnorm_key: Which statistics of an openpi directory; may be empty where there is one.

    Raises:
        CheckpointError: Something is missing or wrong; the message names file and key.
    """
    options = read_options(path) if options is None else options
    checkpoint = open_checkpoint(path)
    openpi = 'type' not in checkpoint.config
    if openpi:
        facts = pi_openpi.read_facts(checkpoint, unnorm_key)
    else:
        facts = pi_lerobot.read_facts(checkpoint)
    resolved = _resolve(facts, options, openpi=openpi)
    sizes = read_sizes(checkpoint, key_prefix(checkpoint), resolved.vision_heads, facts)
    if facts.image_size not in (None, sizes.vision.image_size):
        msg = (
            f'{path / "config.json"}: image_resolution is {facts.image_size}; the weights are for '
            f'{sizes.vision.image_size} pixels'
        )
        raise CheckpointError(msg)
    return PiDirectory(checkpoint, facts, resolved, sizes)


def _resolve(facts: PiFacts, options: PiOptions, *, openpi: bool) -> PiOptions:
    steps = options.num_steps or facts.num_steps
    read = options.saliency_steps or (steps - 1,)
    if read[-1] >= steps:
        msg = f'pi.saliency_steps holds {read[-1]}, allowed are 0 to {steps - 1}'
        raise CheckpointError(msg)
    space = options.action_space or _action_space(len(facts.actions), facts.action_names)
    if space == END_EFFECTOR and len(facts.actions) not in _END_EFFECTOR_COLUMNS:
        msg = f'pi.action_space is end_effector, but there are {len(facts.actions)} action columns'
        raise CheckpointError(f'{msg}; allowed are 4 or 7')
    return replace(
        options,
        action_space=space,
        camera_slots=options.camera_slots or facts.camera_slots,
        image_resize=options.image_resize or (ANTIALIASED if openpi else BILINEAR),
        time_rule=options.time_rule or (ADDED_TIME if openpi else EXACT_TIME),
        clean_prompt=openpi if options.clean_prompt is None else options.clean_prompt,
        saliency_steps=read,
    )


def _action_space(columns: int, names: Sequence[str]) -> str:
    """Tell what the actions are, as far as a checkpoint shows it."""
    if any(word in name for name in names for word in _JOINT_WORDS):
        return JOINTS
    return END_EFFECTOR if columns in _END_EFFECTOR_COLUMNS else JOINTS
