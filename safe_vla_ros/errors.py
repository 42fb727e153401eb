"""Errors that users see: each says what was got and what is allowed."""


class SafeVlaError(Exception):
    """Base of every error that this package raises on purpose."""


class CheckpointError(SafeVlaError):
    """A policy directory is missing something or holds something that cannot be used."""


class ParameterError(SafeVlaError):
    """A parameter, or a combination of parameters, is not allowed; nothing was changed."""


class ObservationError(SafeVlaError):
    """An input message cannot be turned into a part of an observation."""


class ImageError(ObservationError):
    """An image message cannot be decoded."""


class NonFiniteError(SafeVlaError):
    """A tensor or an action holds NaN or infinity; nothing was stored or executed."""


LONGEST_TEXT = 300
"""Characters of somebody else's text that a message or an error repeats."""


def shortened(text: str, length: int = LONGEST_TEXT) -> str:
    """Return a text as it is, or its beginning with an ellipsis.

    Args:
        text: Any text, for example one that came with a message.
        length: Longest result, characters.
    """
    return text if len(text) <= length else text[: length - 1] + '…'
