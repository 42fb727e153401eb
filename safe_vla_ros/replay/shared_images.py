"""Images of a bag: decoded when the first inference asks, once for all methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from safe_vla_ros.errors import ImageError
from safe_vla_ros.replay.errors import BagError
from safe_vla_ros.runtime.image_decoding import CHANNELS, CompressedImage, RawImage, decode_image

if TYPE_CHECKING:
    from safe_vla_ros.types import UInt8Array

COMPRESSED_FORMATS = ('jpeg', 'jpg', 'png')


class SharedImage:
    """An undecoded image that becomes an array when somebody looks at it.

    It stands where ``runtime.image_decoding.AnyImage`` allows an array.
    """

    __slots__ = ('_message', '_pixels', '_problem')

    def __init__(self, message: RawImage | CompressedImage) -> None:
        self._message: RawImage | CompressedImage | None = message
        self._pixels: UInt8Array | None = None
        self._problem = ''

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> UInt8Array:
        """Decode, or return what was decoded before.

        Raises:
            ImageError: It cannot be decoded.
        """
        if self._message is not None:
            message, self._message = self._message, None
            try:
                self._pixels = decode_image(message)
            except ImageError as error:
                self._problem = str(error)
        if self._pixels is None:
            raise ImageError(self._problem)
        return np.array(self._pixels, dtype=dtype) if copy else self._pixels

    def as_image(self) -> UInt8Array:
        """Return this object under the type that the runtime takes."""
        return cast('UInt8Array', self)


def check_encoding(camera: str, topic: str, image: RawImage | CompressedImage) -> None:
    """Refuse a stream whose encoding no image of it can be decoded from.

    Raises:
        BagError: The encoding or format is unknown; says which and what is allowed.
    """
    if isinstance(image, RawImage) and image.encoding not in CHANNELS:
        allowed = ', '.join(CHANNELS)
        msg = f'camera {camera} ({topic}) has encoding {image.encoding!r}; allowed are {allowed}'
        raise BagError(msg)
    if isinstance(image, CompressedImage):
        text = image.format.lower()
        if not any(name in text for name in COMPRESSED_FORMATS):
            allowed = ', '.join(COMPRESSED_FORMATS)
            msg = f'camera {camera} ({topic}) has format {image.format!r}; allowed are {allowed}'
            raise BagError(msg)
