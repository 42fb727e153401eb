"""Errors that users see: each says what was got and what is allowed."""


class SafeVlaError(Exception):
    """Base of every error that this package raises on purpose.

    Its text can be written anywhere: what it repeats of a file or message has no end otherwise, and
    may be no valid Unicode.
    """

    def __str__(self) -> str:
        text = shortened(super().__str__(), LONGEST_SENTENCE)
        return text.encode('utf-8', 'backslashreplace').decode()


class CheckpointError(SafeVlaError):
    """A policy directory is missing something or holds something that cannot be used."""


class ParameterError(SafeVlaError):
    """A parameter, or a combination of parameters, is not allowed; nothing was changed."""


class ObservationError(SafeVlaError):
    """An input message cannot be turned into a part of an observation."""


class ImageError(ObservationError):
    """An image message cannot be decoded."""


class OutputError(SafeVlaError):
    """A result cannot be written; nothing that looks whole is left in its place."""


class SceneError(SafeVlaError):
    """A simulated scene cannot be brought into a state to start from."""


class NonFiniteError(SafeVlaError):
    """A tensor or an action holds NaN or infinity; nothing was stored or executed."""


LONGEST_SENTENCE = 2000
"""Characters of an error; some list everything that is wrong."""

LONGEST_TEXT = 300
"""Characters of somebody else's text that a message or an error repeats."""


def shortened(text: str, length: int = LONGEST_TEXT) -> str:
    """Return a text as it is, or its beginning with an ellipsis.

    Args:
        text: Any text, for example one that came with a message.
        length: Longest result, characters.
    """
    return text if len(text) <= length else text[: length - 1] + '…'
