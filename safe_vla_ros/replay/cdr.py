"""Read the few message types that replay needs straight from their serialised form.

Nothing is copied: the pixels of an image stay a view into the bag's buffer, so that a message that
no inference uses costs a few field reads.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from safe_vla_ros.replay.errors import MessageError
from safe_vla_ros.runtime.image_decoding import CompressedImage, RawImage
from safe_vla_ros.types import NANOSECONDS, MessageHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Stamped(NamedTuple):
    """A message with a header; what it holds is said by ``READERS``."""

    header: MessageHeader
    value: object


class Pose(NamedTuple):
    """Position [3] in metres and quaternion [4] in the order x, y, z, w."""

    position: tuple[float, ...]
    quaternion_xyzw: tuple[float, ...]


class Joints(NamedTuple):
    """Joint names and positions in radians or metres."""

    names: tuple[str, ...]
    positions: tuple[float, ...]


class Twist(NamedTuple):
    """Linear [3] in m/s and angular [3] velocity in rad/s."""

    linear_m_s: tuple[float, ...]
    angular_rad_s: tuple[float, ...]


class _Cursor:
    """Walks through one CDR message, aligned as XCDR1 wants it."""

    __slots__ = ('data', 'order', 'position')

    def __init__(self, raw: bytes | memoryview) -> None:
        if len(raw) < 4 or raw[0] != 0 or raw[1] > 1:
            raise MessageError('not a CDR message: its first bytes are ' + bytes(raw[:4]).hex(' '))
        self.data = memoryview(raw)[4:]
        self.order = '<' if raw[1] == 1 else '>'
        self.position = 0

    def numbers(self, code: str, count: int = 1) -> tuple[float, ...]:
        """Read ``count`` numbers of one struct code."""
        size = struct.calcsize(code)
        start = -(-self.position // size) * size
        self.position = start + size * count
        return struct.unpack_from(f'{self.order}{count}{code}', self.data, start)

    def uint(self) -> int:
        """Read a uint32."""
        start = -(-self.position // 4) * 4
        self.position = start + 4
        return int(struct.unpack_from(f'{self.order}I', self.data, start)[0])

    def take(self, count: int) -> memoryview:
        """Take bytes without copying them."""
        end = self.position + count
        if end > len(self.data):
            msg = f'message ends {end - len(self.data)} bytes too early'
            raise MessageError(msg)
        view = self.data[self.position : end]
        self.position = end
        return view

    def text(self) -> str:
        """Read a string."""
        return bytes(self.take(self.uint())).rstrip(b'\0').decode()

    def header(self) -> MessageHeader:
        """Read a std_msgs/Header."""
        (seconds,) = self.numbers('i')
        return MessageHeader(int(seconds) * NANOSECONDS + self.uint(), self.text())


def _image(cursor: _Cursor) -> Stamped:
    header = cursor.header()
    height, width = cursor.uint(), cursor.uint()
    encoding = cursor.text()
    (is_bigendian,) = cursor.numbers('B')
    step = cursor.uint()
    data = cursor.take(cursor.uint())
    image = RawImage(
        encoding=encoding,
        height=height,
        width=width,
        step=step,
        is_bigendian=bool(is_bigendian),
        data=data,
    )
    return Stamped(header, image)


def _compressed_image(cursor: _Cursor) -> Stamped:
    header = cursor.header()
    image_format = cursor.text()
    image = CompressedImage(format=image_format, data=cursor.take(cursor.uint()))
    return Stamped(header, image)


def _pose(cursor: _Cursor) -> Stamped:
    header = cursor.header()
    numbers = cursor.numbers('d', 7)
    return Stamped(header, Pose(numbers[:3], numbers[3:]))


def _joints(cursor: _Cursor) -> Stamped:
    header = cursor.header()
    names = tuple(cursor.text() for _ in range(cursor.uint()))
    positions = cursor.numbers('d', count) if (count := cursor.uint()) else ()
    return Stamped(header, Joints(names, positions))


def _twist(cursor: _Cursor) -> Stamped:
    header = cursor.header()
    numbers = cursor.numbers('d', 6)
    return Stamped(header, Twist(numbers[:3], numbers[3:]))


def _first_status(cursor: _Cursor) -> str:
    cursor.header()
    if not cursor.uint():
        return ''
    cursor.numbers('B')
    cursor.text()
    return cursor.text()


READERS: Mapping[str, Callable[[_Cursor], object]] = {
    'sensor_msgs/msg/Image': _image,
    'sensor_msgs/msg/CompressedImage': _compressed_image,
    'geometry_msgs/msg/PoseStamped': _pose,
    'geometry_msgs/msg/TwistStamped': _twist,
    'sensor_msgs/msg/JointState': _joints,
    'diagnostic_msgs/msg/DiagnosticArray': _first_status,
    'std_msgs/msg/String': _Cursor.text,
    'std_msgs/msg/Float64': lambda cursor: cursor.numbers('d')[0],
}
"""What each type becomes.

``Stamped`` of RawImage, CompressedImage, Pose, Twist or Joints; the message of the first status of
a DiagnosticArray; the text of a String; the number of a Float64.
"""


def read_message(msgtype: str, raw: bytes | memoryview) -> object:
    """Read one message.

    Args:
        msgtype: A key of ``READERS``.
        raw: The message in CDR, with its 4 bytes of encapsulation; kept alive by images.

    Returns:
        What ``READERS`` says.

    Raises:
        MessageError: The bytes are not such a message.
    """
    try:
        return READERS[msgtype](_Cursor(raw))
    except (struct.error, UnicodeDecodeError) as error:
        msg = f'not a {msgtype}: {error}'
        raise MessageError(msg) from error
