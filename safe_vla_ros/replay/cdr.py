"""Read one serialised message, whatever its bytes are.

rosbags' deserialisers do it. They are handed a view: from ``bytes`` they would copy every image
once. Out of a view they make views, so an image that no inference uses costs a few field reads.

They are called one by one because ``Typestore.deserialize_cdr`` refuses bytes behind the last
field. Good recordings have such bytes: what ``rclpy.serialization.serialize_message`` makes of a
JointState without efforts, over Fast DDS, ends in eight of them.
"""

from __future__ import annotations

from typing import Any

from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.replay.errors import MessageError

_TYPES = get_typestore(Stores.ROS2_JAZZY)
_BIG_ENDIAN, _LITTLE_ENDIAN = b'\0\0', b'\0\1'
_ENCAPSULATION = 4


def read_message(msgtype: str, raw: bytes | memoryview) -> Any:
    """Read one message.

    Args:
        msgtype: Type, for example ``sensor_msgs/msg/Image``.
        raw: The message in CDR, with its 4 bytes of encapsulation; kept alive by images.

    Returns:
        An object with the message's fields; sequences of numbers are arrays.

    Raises:
        MessageError: The bytes are not such a message.
    """
    order = bytes(raw[:2])
    if order not in {_BIG_ENDIAN, _LITTLE_ENDIAN}:
        msg = f'not a CDR message: its first bytes are {bytes(raw[:4]).hex(" ") or "missing"}'
        raise MessageError(msg)
    try:
        kind = _TYPES.get_msgdef(msgtype)
        read = kind.deserialize_cdr_le if order == _LITTLE_ENDIAN else kind.deserialize_cdr_be
        message, _ = read(memoryview(raw)[_ENCAPSULATION:], 0, kind.cls, _TYPES)
    except Exception as error:  # rosbags promises no kind of error.
        msg = f'not a {msgtype}: {str(error) or type(error).__name__}'
        raise MessageError(msg) from error
    return message
