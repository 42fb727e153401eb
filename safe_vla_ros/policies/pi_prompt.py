"""The prompts of pi0 and pi0.5, and their token ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies.spec import download
from safe_vla_ros.policies.tokenizer_file import encode_text, read_tokenizer

if TYPE_CHECKING:
    from safe_vla_ros.policies.pi_statistics import Vector

PAD_ID, BEGIN_ID = 0, 2
PALIGEMMA_TOKENS = {PAD_ID: '<pad>', 1: '<eos>', BEGIN_ID: '<bos>'}
"""What these ids are in PaliGemma's tokenizer."""

IMAGE_PLACEHOLDER = '<image>'
"""Has the id behind the last row of pi0's embedding."""

_BINS = np.linspace(-1.0, 1.0, 257)[:-1]
_NO_STATE = np.zeros(0)


class PiPromptEncoder:
    """Turns an instruction and a normalised state into the ids of a prompt.

    Attributes:
        length: Most ids; more are cut.
    """

    def __init__(
        self,
        path: Path,
        *,
        vocabulary: int,
        length: int,
        with_state: bool,
        clean: bool,
        state_width: int = 0,
    ) -> None:
        """Read a tokenizer.

        Args:
            path: Its ``tokenizer.json``.
            vocabulary: Rows of the model's embedding.
            length: Most ids.
            with_state: Whether the prompt is pi0.5's with the state in it.
            clean: Whether a prompt without state is cleaned and ends with a newline encoded alone.
            state_width: Zeros are added to the state up to this many numbers.

        Raises:
            CheckpointError: The tokenizer is missing, broken, too large, or of another model.
        """
        self.length = length
        self._with_state = with_state
        self._clean = clean
        self._state_width = state_width
        self._vocabulary = vocabulary
        self._tokenizer = read_tokenizer(path, vocabulary, not_embedded=(IMAGE_PLACEHOLDER,))
        for index, text in PALIGEMMA_TOKENS.items():
            got = self._tokenizer.id_to_token(index)
            if got != text:
                msg = f'{path} is of another model: id {index} is {got!r}, expected {text!r}'
                raise CheckpointError(msg)

    def text(self, instruction: str, state: Vector = _NO_STATE) -> str:
        """Return the prompt; without a newline at its end where that is encoded alone.

        Args:
            instruction: The task in words.
            state: Normalised state [P]; used only by a prompt that holds it.
        """
        if self._with_state:
            padding = max(self._state_width - len(state), 0)
            numbers = ' '.join(map(str, state_bins(np.pad(state, (0, padding)))))
            return f'Task: {_cleaned(instruction)}, State: {numbers};\nAction: '
        if self._clean:
            return _cleaned(instruction)
        return instruction if instruction.endswith('\n') else f'{instruction}\n'

    def encode(self, instruction: str, state: Vector = _NO_STATE) -> list[int]:
        """Return the ids of the prompt, not padded.

        Args:
            instruction: The task in words.
            state: Normalised state [P].

        Raises:
            ObservationError: The tokenizer cannot encode it, or the model cannot embed it.
        """
        ids = encode_text(self._tokenizer, self.text(instruction, state))
        if self._clean and not self._with_state:
            ids += self._without_begin(encode_text(self._tokenizer, '\n'))
        if max(ids, default=0) >= self._vocabulary:
            msg = f'the instruction {instruction!r} holds {IMAGE_PLACEHOLDER}, which is no text'
            raise ObservationError(msg)
        return [BEGIN_ID, *self._without_begin(ids)][: self.length]

    def _without_begin(self, ids: list[int]) -> list[int]:
        return ids[1:] if ids[:1] == [BEGIN_ID] else ids


def state_bins(state: Vector) -> list[int]:
    """Return the bins of a normalised state: 0 to 255 within [-1, 1), -1 below, 255 from 1 on."""
    bins = np.digitize(state, bins=_BINS) - 1
    return [int(number) for number in bins]


def find_tokenizer(directory: Path, place: str) -> Path:
    """Return the ``tokenizer.json`` that a setting names.

    Args:
        directory: The checkpoint directory.
        place: A directory or file, relative to it or absolute, or ``hf:org/name@<40-hex commit>``.

    Raises:
        CheckpointError: There is none.
    """
    if place.startswith('hf:'):
        # The rest of such a repository is a model of its own.
        folder = download(place, ['tokenizer.json'])
    else:
        folder = directory / Path(place).expanduser()
    path = folder if folder.suffix == '.json' else folder / 'tokenizer.json'
    if not path.exists():
        msg = (
            f"{path} is missing; PaliGemma's tokenizer is needed: put its tokenizer.json there, "
            'or say in policy.yaml (pi.tokenizer) where it lies'
        )
        raise CheckpointError(msg)
    return path


def _cleaned(instruction: str) -> str:
    return instruction.strip().replace('_', ' ').replace('\n', ' ')
