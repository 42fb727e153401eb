"""The prompt that OpenVLA and CogACT were trained with, and its token ids."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.tokenizer_file import encode_text, read_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenizers import Tokenizer

PROMPT = 'In: What action should the robot take to {instruction}?\nOut:'
BEGIN_ID = 1
STOP_ID = 2
EMPTY_ID = 29871
"""Llama 2's lone space marker, which training put after ``Out:``."""
LLAMA_TOKENS = {BEGIN_ID: '<s>', STOP_ID: '</s>', EMPTY_ID: '\u2581'}
"""What these ids are in Llama 2's tokenizer."""


class PromptEncoder:
    """Turns an instruction into the ids of the whole prompt; files are read at the first use."""

    def __init__(
        self,
        directory: Path,
        template: str = PROMPT,
        vocabulary: int = 32064,
        complete: Callable[[list[int]], list[int]] | None = None,
    ) -> None:
        """Remember where the tokenizer lies.

        Args:
            directory: The checkpoint directory, with ``tokenizer.json``.
            template: Text with ``{instruction}`` in it.
            vocabulary: Number of rows of the decoder's embedding.
            complete: From the ids of the text to those of the prompt; None is
                ``complete_prompt``.
        """
        self._complete = complete or complete_prompt
        self._path = directory / 'tokenizer.json'
        self._template = template
        self._vocabulary = vocabulary

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        if not self._path.exists():
            msg = f'{self._path} is missing; it is needed to encode the instruction'
            if self._path.with_name('tokenizer.model').exists():
                msg += ' (tokenizer.model alone is not read: save the fast tokenizer beside it)'
            raise CheckpointError(msg)
        return read_tokenizer(self._path, self._vocabulary)

    def check(self) -> None:
        """Read the tokenizer now.

        Raises:
            CheckpointError: It is missing, broken, or its ids do not fit the decoder.
        """
        self._tokenizer  # noqa: B018  (reads it)

    def check_tokens(self, expected: Mapping[int, str]) -> None:
        """Read the tokenizer now and make sure that it is the one the model was trained with.

        Args:
            expected: Tokens that it must have, by id.

        Raises:
            CheckpointError: As ``check``, or a token has another text.
        """
        for index, text in expected.items():
            got = self._tokenizer.id_to_token(index)
            if got != text:
                msg = f'{self._path} is of another model: id {index} is {got!r}, expected {text!r}'
                raise CheckpointError(msg)

    def encode(self, instruction: str) -> list[int]:
        """Return the ids of the prompt: beginning of sequence first, the space marker last.

        Args:
            instruction: The task in words; lower-cased as in training.

        Raises:
            CheckpointError: The tokenizer is missing or broken.
            ObservationError: The instruction has a character that the tokenizer cannot encode.
        """
        text = self._template.replace('{instruction}', instruction.lower())
        ids = encode_text(self._tokenizer, text)
        if not ids:
            msg = f'the tokenizer turned {text!r} into no tokens'
            raise ObservationError(msg)
        return self._complete(ids)


def complete_prompt(ids: list[int]) -> list[int]:
    """Return the ids with the beginning and the space marker that training always had."""
    begin = [] if ids[:1] == [BEGIN_ID] else [BEGIN_ID]
    end = [] if ids[-1:] == [EMPTY_ID] else [EMPTY_ID]
    return begin + ids + end


def end_with_cognition_token(ids: list[int]) -> list[int]:
    """Return the ids with the space marker and the stop token, whatever the last one is.

    CogACT's actions are made from the state of that stop token.
    """
    begin = [] if ids[:1] == [BEGIN_ID] else [BEGIN_ID]
    return [*begin, *ids, EMPTY_ID, STOP_ID]
