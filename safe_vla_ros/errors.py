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


class OutputError(SafeVlaError):
    """A result cannot be written; nothing that looks whole is left in its place."""


class NonFiniteError(SafeVlaError):
    """A tensor or an action holds NaN or infinity; nothing was stored or executed."""
