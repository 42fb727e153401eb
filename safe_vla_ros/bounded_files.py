"""Files that users give: regular ones only, bounded before they are read."""

from __future__ import annotations

import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import yaml

from safe_vla_ros.errors import SafeVlaError, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGEST_JSON = 64 * 2**20
"""Bytes of a JSON file; a tokenizer of a large vocabulary has ten million."""

LARGEST_YAML = 128 * 2**10
"""Bytes of a YAML file, which is read a thousand times more slowly than JSON."""

MOST_VALUES = 5_000_000
"""Values in a JSON file; each takes far more memory than its two characters."""


@contextmanager
def opened(path: Path, error: type[SafeVlaError] = SafeVlaError) -> Iterator[BinaryIO]:
    """Open a regular file for unbuffered reading.

    Args:
        path: The file, or a link to it.
        error: Raised instead of an OSError.

    Raises:
        SafeVlaError: As ``error``: missing, not readable, or a directory, device, pipe or socket,
            which could be endless.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        msg = f'{path} is missing'
        raise error(msg) from None
    except (OSError, ValueError) as problem:
        msg = f'{path} cannot be read: {problem}'
        raise error(msg) from problem
    try:
        with open(descriptor, 'rb', buffering=0) as file:  # noqa: PTH123  (a descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                msg = f'{path} is not a regular file'
                raise error(msg)
            yield file
    except OSError as problem:
        msg = f'{path} cannot be read: {problem.strerror}'
        raise error(msg) from problem


def read_bytes(path: Path, *, limit: int, error: type[SafeVlaError] = SafeVlaError) -> bytes:
    """Read a regular file of a bounded size.

    Args:
        path: The file.
        limit: Largest size, bytes.
        error: Raised when it cannot be read.

    Raises:
        SafeVlaError: As ``error``: it is longer, or ``opened`` refuses it.
    """
    with opened(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        content = bytearray()
        # A file may grow while it is read, and its size may be unknown.
        while size <= limit and len(content) <= limit:
            part = file.read(limit + 1 - len(content))
            if not part:
                return bytes(content)
            content += part
    msg = f'{path} has {max(size, len(content))} bytes; allowed are {limit}'
    raise error(msg)


def read_json(path: Path, error: type[SafeVlaError] = SafeVlaError) -> Any:
    """Read a JSON file of at most ``LARGEST_JSON`` bytes.

    Raises:
        SafeVlaError: As ``error``: it cannot be read, or is not JSON.
    """
    try:
        return parse_json(read_bytes(path, limit=LARGEST_JSON, error=error))
    except ValueError as problem:
        msg = f'{path} cannot be read as JSON: {problem}'
        raise error(msg) from problem


def parse_json(text: bytes) -> Any:
    """Parse JSON of at most ``MOST_VALUES`` values.

    Raises:
        ValueError: It is not JSON, or holds too many values or too deep ones.
    """
    if sum(text.count(mark) for mark in b',[{') > MOST_VALUES:
        msg = f'it holds more than {MOST_VALUES} values'
        raise ValueError(msg)
    try:
        return json.loads(text)
    except RecursionError:
        msg = 'its values are nested too deeply'
        raise ValueError(msg) from None


def read_yaml(path: Path, error: type[SafeVlaError] = SafeVlaError) -> Any:
    """Read a YAML file of at most ``LARGEST_YAML`` bytes.

    Raises:
        SafeVlaError: As ``error``: it cannot be read, or is not YAML.
    """
    text = read_bytes(path, limit=LARGEST_YAML, error=error)
    try:
        return parse_yaml(text.decode('utf-8-sig'))
    except ValueError as problem:
        msg = f'{path} cannot be read as YAML: {problem}'
        raise error(msg) from problem


def parse_yaml(text: str) -> Any:
    """Parse YAML without aliases.

    Raises:
        ValueError: It is not YAML, holds an alias, or is nested too deeply.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as problem:
        raise ValueError(shortened(str(problem))) from problem
    except RecursionError:
        msg = 'its values are nested too deeply'
        raise ValueError(msg) from None
    except Exception as problem:  # scalars that only look like dates or numbers
        msg = f'it holds a value that is none ({type(problem).__name__}: {problem})'
        raise ValueError(shortened(msg)) from problem


class _Loader(yaml.SafeLoader):
    """Refuses aliases as ROS does: a few of them, nested, stand for more than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, 'aliases are not allowed', mark)
        return super().compose_node(parent, index)
