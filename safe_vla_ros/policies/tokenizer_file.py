"""A policy's tokenizer.json, read from a bounded file and used without its surprises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from safe_vla_ros.bounded_files import LARGEST_JSON, read_bytes
from safe_vla_ros.errors import CheckpointError, ObservationError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_PANIC = 'PanicException'
"""What the library raises where its Rust code gives up: no Exception, and not importable."""


def read_tokenizer(path: Path, vocabulary: int, *, not_embedded: Collection[str] = ()) -> Tokenizer:
    """Read a tokenizer whose ids fit an embedding.

    Args:
        path: A ``tokenizer.json``.
        vocabulary: Rows of the embedding.
        not_embedded: Tokens that may have a higher id, because no text has them.

    Returns:
        The tokenizer; it neither pads nor cuts, whatever its file says.

    Raises:
        CheckpointError: The file is missing, too large or broken, or has higher ids.
    """
    content = read_bytes(path, limit=LARGEST_JSON, error=CheckpointError)
    try:
        tokenizer = Tokenizer.from_buffer(content)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        ids = tokenizer.get_vocab()
        highest = max((ids[token] for token in ids.keys() - set(not_embedded)), default=0)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        msg = f'{path} is not a tokenizer: {error}'
        raise CheckpointError(msg) from error
    if highest >= vocabulary:
        msg = f'{path} has ids up to {highest}; the decoder embeds {vocabulary}'
        raise CheckpointError(msg)
    return tokenizer


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of a text.

    Raises:
        ObservationError: The tokenizer cannot encode it.
    """
    try:
        return list(tokenizer.encode(text).ids)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        msg = f'the tokenizer cannot encode {text!r}: {error}'
        raise ObservationError(msg) from error
