"""Open a recording and read its messages in the order of their time, without ROS."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

from rosbags.rosbag2 import Reader

from safe_vla_ros.bounded_files import opened, read_bytes
from safe_vla_ros.replay.errors import BagError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from rosbags.interfaces import Connection

STORAGE_SUFFIXES = ('.mcap', '.db3')
METADATA = 'metadata.yaml'
_LARGEST_METADATA = 2 * 2**20
"""Bytes; a recording split ten thousand times has them."""


class TopicType(NamedTuple):
    """One message type of a topic, with the number of its messages."""

    topic: str
    msgtype: str
    messages: int


class BagMessage(NamedTuple):
    """One serialised message.

    Attributes:
        topic: Topic.
        msgtype: Type, for example ``sensor_msgs/msg/Image``.
        time_s: When the recorder received it, seconds.
        raw: CDR with its encapsulation.
    """

    topic: str
    msgtype: str
    time_s: float
    raw: bytes


class Bag:
    """A rosbag2 recording: a directory with metadata.yaml, or one storage file.

    sqlite3 and MCAP, split, with file, message or chunk compression. Whatever is wrong with it is a
    BagError that names the bag.
    """

    def __init__(self, path: Path) -> None:
        """Name a bag; nothing is read before it is entered."""
        self.path = path
        self._stack = ExitStack()
        self._reader: Reader | None = None

    def __enter__(self) -> Bag:
        """Open the bag.

        Raises:
            BagError: It does not exist, is not a rosbag2, cannot be read, or holds no message.
        """
        _check_path(self.path)
        try:
            self._reader = self._stack.enter_context(Reader(self.path))
            _check_reader(self._reader)
        except Exception as error:
            self._close()
            msg = f'{self.path} cannot be opened as a rosbag2: {_reason(error)}'
            raise BagError(msg) from error
        if not self._reader.message_count:
            self._close()
            msg = f'{self.path} holds no messages'
            raise BagError(msg)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bag."""
        self._close()

    def _close(self) -> None:
        # A reader may fail to forget what a broken metadata.yaml made it hold.
        with suppress(Exception):
            self._stack.close()
        self._reader = None

    @property
    def reader(self) -> Reader:
        """The open reader.

        Raises:
            BagError: The bag is not open.
        """
        if self._reader is None:
            msg = f'{self.path} is not open'
            raise BagError(msg)
        return self._reader

    @property
    def start_s(self) -> float:
        """Time of the first message, seconds."""
        return self.reader.start_time * 1e-9

    @property
    def end_s(self) -> float:
        """Time of the last message, seconds."""
        return (self.reader.end_time - 1) * 1e-9

    def topic_types(self) -> tuple[TopicType, ...]:
        """Return each topic's types and message counts, sorted."""
        counts: dict[tuple[str, str], int] = {}
        for connection in self.reader.connections:
            key = (connection.topic, connection.msgtype)
            counts[key] = counts.get(key, 0) + connection.msgcount
        return tuple(TopicType(*key, count) for key, count in sorted(counts.items()))

    def messages(self, wanted: Mapping[str, str]) -> Iterator[BagMessage]:
        """Read messages in the order in which the files hold them.

        Args:
            wanted: Message type by topic; nothing else is read.

        Yields:
            The messages; never more than one chunk of the bag is in memory.

        Raises:
            BagError: The bag is damaged, or shorter than its index says, after the messages that
                were yielded.
        """
        connections = [
            connection
            for connection in self.reader.connections
            if wanted.get(connection.topic) == connection.msgtype
        ]
        if not connections:
            return
        expected = sum(connection.msgcount for connection in connections)
        count = 0
        for connection, time_ns, raw in self._guarded(connections):
            count += 1
            yield BagMessage(connection.topic, connection.msgtype, time_ns * 1e-9, raw)
        if count < expected:
            msg = f'{self.path} ends after {count} of the {expected} messages that its index names'
            raise BagError(msg)

    def _guarded(
        self, connections: Collection[Connection]
    ) -> Iterator[tuple[Connection, int, bytes]]:
        """Turn every complaint of the storage into a BagError, and none of the caller's."""
        source = self.reader.messages(connections)
        while True:
            try:
                connection, time_ns, raw = next(source)
                _check_type(time_ns, int, 'a time')
                _check_type(raw, bytes, 'a message')
            except StopIteration:
                return
            except Exception as error:
                msg = f'{self.path} is damaged: {_reason(error)}'
                raise BagError(msg) from error
            yield connection, time_ns, raw


def _check_path(path: Path) -> None:
    if not path.exists():
        msg = f'{path} does not exist'
        raise BagError(msg)
    if path.is_dir():
        if (path / METADATA).exists():
            read_bytes(path / METADATA, limit=_LARGEST_METADATA, error=BagError)
            for file in path.iterdir():
                if not file.is_dir():
                    _check_regular(file)
            return
        files = sorted(file.name for file in path.iterdir() if file.suffix in STORAGE_SUFFIXES)
        if not files:
            msg = f'{path} is not a rosbag2: it holds no metadata.yaml'
            raise BagError(msg)
        msg = (
            f'{path} holds {", ".join(files)} but no metadata.yaml, so its recording was not '
            'finished: run "ros2 bag reindex" on it, or give the file itself'
        )
        raise BagError(msg)
    if path.suffix == '.bag':
        msg = f'{path} is a ROS 1 bag: convert it with "rosbags-convert" first'
        raise BagError(msg)
    if path.suffix not in STORAGE_SUFFIXES:
        msg = f'{path} is not a rosbag2: allowed are a directory with metadata.yaml, .mcap and .db3'
        raise BagError(msg)
    _check_regular(path)


def _check_regular(path: Path) -> None:
    with opened(path, BagError):
        pass


def _check_reader(reader: Reader) -> None:
    """Refuse what metadata.yaml and sqlite3, which know no types, may hold instead of values."""
    for count in (reader.message_count, reader.start_time, reader.end_time):
        _check_type(count, int, 'a number of messages or nanoseconds')
    for connection in reader.connections:
        _check_type(connection.topic, str, 'a topic')
        _check_type(connection.msgtype, str, 'a message type')
        _check_type(connection.msgcount, int, 'a number of messages')


def _check_type(value: object, kind: type, what: str) -> None:
    if not isinstance(value, kind):
        msg = f'it holds {value!r} where {what} belongs'
        raise BagError(msg)


def _reason(error: Exception) -> str:
    text = str(error) or 'no further explanation'
    said = isinstance(error, BagError) or type(error).__name__ == 'ReaderError'
    return text if said else f'{type(error).__name__}: {text}'
