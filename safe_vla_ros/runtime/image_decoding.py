"""Decoding of image messages to RGB, the same for the node and the replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from safe_vla_ros.errors import ImageError
from safe_vla_ros.types import UInt8Array

CHANNELS = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4, 'bgra8': 4, 'mono8': 1}
"""Raw encodings decoded here, with their bytes per pixel."""

_JPEG_START, _JPEG_END, _PNG_START = b'\xff\xd8\xff', b'\xff\xd9', b'\x89PNG\r\n\x1a\n'


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

Fallback = Callable[[RawImage | CompressedImage], UInt8Array]


def decode_image(image: AnyImage, fallback: Fallback | None = None) -> UInt8Array:
    """Decode an image message.

    Args:
        image: A raw image in an encoding of ``CHANNELS``, a JPEG or PNG, an RGB array already,
            or a function that makes one.
        fallback: Asked for every other encoding or format; returns RGB, uint8 [H, W, 3].

    Returns:
        RGB, uint8 [H, W, 3], contiguous. Alpha is dropped, grey repeated.

    Raises:
        ImageError: The image cannot be decoded; the sentence says what was got and what is allowed.
    """
    if isinstance(image, RawImage):
        if image.encoding in CHANNELS:
            return _decode_raw(image)
        allowed = f'encoding {image.encoding!r}; allowed are {", ".join(CHANNELS)}'
    elif isinstance(image, CompressedImage):
        data = np.frombuffer(image.data, dtype=np.uint8)
        start = data[:8].tobytes()
        if start.startswith((_JPEG_START, _PNG_START)):
            return _decode_compressed(image, data)
        allowed = (
            f'compressed image with format {image.format!r} and {data.size} bytes that begin '
            'neither as JPEG nor as PNG; allowed are jpeg and png'
        )
    else:
        return _checked(image() if callable(image) else image, 'image array')
    if fallback is None:
        raise ImageError(
            f'image has {allowed}' if isinstance(image, RawImage) else f'got a {allowed}'
        )
    try:
        decoded = fallback(image)
    except Exception as error:
        raise ImageError(f'image has {allowed} (the fallback decoder says: {error})') from error
    return _checked(decoded, 'image of the fallback decoder')


def _decode_raw(image: RawImage) -> UInt8Array:
    channels = CHANNELS[image.encoding]
    if image.height < 1 or image.width < 1:
        raise ImageError(f'image is {image.width} x {image.height} pixels; both must be at least 1')
    row_bytes = image.width * channels
    if image.step < row_bytes:
        raise ImageError(
            f'image has step {image.step}; {image.encoding} of width {image.width} needs at least '
            f'{row_bytes}'
        )
    data = np.frombuffer(image.data, dtype=np.uint8)
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


def _decode_compressed(image: CompressedImage, data: UInt8Array) -> UInt8Array:
    if data[:3].tobytes() == _JPEG_START and _JPEG_END not in data[data.size // 2 :].tobytes():
        raise ImageError(f'JPEG image of {data.size} bytes is cut off: it has no end marker')
    try:
        pixels: NDArray[Any] | None = cv2.imdecode(
            data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        raise ImageError(f'{image.format!r} image cannot be decoded: {error}') from error
    if pixels is None:
        raise ImageError(f'{image.format!r} image of {data.size} bytes cannot be decoded')
    # compressed_image_transport names the order of the channels it handed to the encoder.
    if 'compressed rgb' in image.format:
        return _checked(pixels, 'image')
    return np.array(pixels[..., ::-1], order='C')


def _checked(array: Any, name: str) -> UInt8Array:
    pixels = np.asarray(array)
    right_shape = pixels.ndim == 3 and pixels.shape[2] == 3 and 0 not in pixels.shape
    if pixels.dtype != np.uint8 or not right_shape:
        raise ImageError(
            f'{name} is {pixels.dtype} {list(pixels.shape)}; allowed is uint8 [height, width, 3]'
        )
    return np.ascontiguousarray(pixels)
