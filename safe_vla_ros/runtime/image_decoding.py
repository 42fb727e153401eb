"""Decoding of image messages to RGB, the same for the node and the replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from safe_vla_ros.errors import ImageError, shortened
from safe_vla_ros.runtime.image_files import (
    MAX_PIXELS,
    check_size,
    decode_image_file,
    is_image_file,
)
from safe_vla_ros.types import UInt8Array

CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
"""Raw encodings decoded here, with their bytes per pixel."""

_MAX_RAW_BYTES = 8 * MAX_PIXELS
"""Bytes of the largest raw image; encodings that a fallback decodes have up to 8 a pixel."""


@dataclass(frozen=True)
class RawImage:
    """The fields of ``sensor_msgs/Image`` that say what its bytes mean.

    Attributes:
        encoding: Pixel format, for example ``rgb8``.
        height, width: Size in pixels.
        step: Length of a row in bytes, padding included.
        is_bigendian: Byte order; without meaning for pixels of 8 bits per channel.
        data: ``step * height`` bytes.
    """

    encoding: str
    height: int
    width: int
    step: int
    is_bigendian: bool
    data: Any


@dataclass(frozen=True)
class CompressedImage:
    """The fields of ``sensor_msgs/CompressedImage``.

    Attributes:
        format: For example ``jpeg``, ``png`` or ``rgb8; jpeg compressed bgr8``.
        data: The file's bytes.
    """

    format: str
    data: Any


AnyImage = RawImage | CompressedImage | UInt8Array | Callable[[], UInt8Array]
"""A function makes the RGB image when, and only if, an inference uses it."""

Fallback = Callable[[RawImage], UInt8Array]


def decode_image(image: AnyImage, fallback: Fallback | None = None) -> UInt8Array:
    """Decode an image message.

    Args:
        image: A raw image in an encoding of ``CHANNELS``, a JPEG or PNG, an RGB array already,
            or a function that makes one.
        fallback: Asked for every other raw encoding; returns RGB, uint8 [H, W, 3].

    Returns:
        RGB, uint8 [H, W, 3], contiguous. Alpha is dropped, grey repeated.

    Raises:
        ImageError: The image cannot be decoded, or is larger than ``image_files`` allows; the
            sentence says what was got and what is allowed.
    """
    if isinstance(image, RawImage):
        return _decode_raw(image, fallback)
    if isinstance(image, CompressedImage):
        return _decode_compressed(image)
    return _checked(image() if callable(image) else image, 'image array')


def _decode_raw(image: RawImage, fallback: Fallback | None) -> UInt8Array:
    check_size(image.width, image.height)
    data = np.frombuffer(image.data, dtype=np.uint8)
    if data.size > _MAX_RAW_BYTES:
        raise ImageError(f'image has {data.size} bytes of data; allowed are {_MAX_RAW_BYTES}')
    if image.encoding in CHANNELS:
        return _decode_8_bit(image, data)
    allowed = f'encoding {shortened(image.encoding)!r}; allowed are {", ".join(CHANNELS)}'
    if fallback is None:
        raise ImageError(f'image has {allowed}')
    try:
        decoded = fallback(image)
    except Exception as error:
        raise ImageError(f'image has {allowed} (the fallback decoder says: {error})') from error
    return _checked(decoded, 'image of the fallback decoder')


def _decode_8_bit(image: RawImage, data: UInt8Array) -> UInt8Array:
    channels = CHANNELS[image.encoding]
    row_bytes = image.width * channels
    if image.step < row_bytes:
        raise ImageError(
            f'image has step {image.step}; {image.encoding} of width {image.width} needs at least '
            f'{row_bytes}'
        )
    if data.size != image.step * image.height:
        raise ImageError(
            f'image has {data.size} bytes of data; step {image.step} times height {image.height} '
            f'makes {image.step * image.height}'
        )
    rows = data.reshape(image.height, image.step)[:, :row_bytes]
    pixels = rows.reshape(image.height, image.width, channels)
    if image.encoding == 'mono8':
        return np.repeat(pixels, 3, axis=2)
    rgb = pixels[..., 2::-1] if image.encoding.startswith('bgr') else pixels[..., :3]
    return np.array(rgb, order='C')


def _decode_compressed(image: CompressedImage) -> UInt8Array:
    data = np.frombuffer(image.data, dtype=np.uint8).data
    if not is_image_file(data):
        raise ImageError(
            f'got a compressed image with format {shortened(image.format)!r} and {len(data)} bytes '
            'that begin neither as JPEG nor as PNG; allowed are jpeg and png'
        )
    pixels = decode_image_file(data)
    # compressed_image_transport names the order of the channels it handed to the encoder, which
    # takes them for blue, green, red.
    return _checked(pixels[..., ::-1] if 'compressed rgb' in image.format else pixels, 'image')


def _checked(array: Any, name: str) -> UInt8Array:
    pixels = np.asarray(array)
    right_shape = pixels.ndim == 3 and pixels.shape[2] == 3 and 0 not in pixels.shape
    if pixels.dtype != np.uint8 or not right_shape:
        raise ImageError(
            f'{name} is {pixels.dtype} {list(pixels.shape)}; allowed is uint8 [height, width, 3]'
        )
    return np.ascontiguousarray(pixels)
