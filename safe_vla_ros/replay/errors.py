"""Errors of replay; each is reported with the bag it belongs to, and other bags go on."""

from safe_vla_ros.errors import SafeVlaError


class ReplayError(SafeVlaError):
    """Replay cannot start: its arguments or its output folder are not usable."""


class BagError(SafeVlaError):
    """A bag cannot be opened, read on, or lacks what the policy needs."""


class MessageError(SafeVlaError):
    """The bytes of one message are not what their type says."""
