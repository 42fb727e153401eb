"""Camera images as a policy was trained with them: numpy, OpenCV and Pillow, no TensorFlow.

The order is that of the published evaluation code of OpenVLA: rotate by 180 degrees or
mirror, JPEG round trip, resize with an antialiased Lanczos filter, crop the central 90 % of the
area. Each step but the resize is an option, because a robot's camera stream is not a simulator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from safe_vla_ros.errors import ImageError
from safe_vla_ros.types import Float32Array, UInt8Array

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.types import PolicySettings

JPEG_QUALITY = 95
CROPPED_AREA = 0.9
_LANCZOS_RADIUS = 3.0


@dataclass(frozen=True)
class ImagePreparation:
    """How one camera image becomes the square image that the model sees.

    Attributes:
        size: Side of the prepared image, pixels; None leaves the image's own sides.
        rotate_180: Rotate by 180 degrees first.
        mirror: Mirror left to right first (LIBERO turned pictures stored bottom row first).
        jpeg_roundtrip: Encode and decode as JPEG, as RLDS training data was.
        center_crop: Keep the central 90 % of the area (trained with random crops).
        resize: Brings an image to a height and a width; None is ``resize_lanczos3``.
    """

    size: int | None
    rotate_180: bool = False
    mirror: bool = False
    jpeg_roundtrip: bool = False
    center_crop: bool = False
    resize: Callable[[UInt8Array, int, int], UInt8Array] | None = None

    @classmethod
    def of(
        cls,
        settings: PolicySettings,
        size: int | None,
        resize: Callable[[UInt8Array, int, int], UInt8Array] | None = None,
    ) -> ImagePreparation:
        """Return the preparation that the settings ask for."""
        return cls(
            size=size,
            rotate_180=settings.rotate_180,
            mirror=settings.mirror,
            jpeg_roundtrip=settings.jpeg_roundtrip,
            center_crop=settings.center_crop,
            resize=resize,
        )

    def __call__(self, image: UInt8Array) -> UInt8Array:
        """Prepare one image.

        Args:
            image: RGB, uint8 [H, W, 3], any size.

        Returns:
            RGB, uint8 [size, size, 3], or [H, W, 3] without a size.

        Raises:
            ImageError: The array is not a non-empty uint8 image with three channels.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            msg = (
                f'an image is {image.dtype} {list(image.shape)}; '
                'allowed is uint8 [height, width, 3] (RGB) with at least one pixel'
            )
            raise ImageError(msg)
        if self.rotate_180:
            image = image[::-1, ::-1]
        if self.mirror:
            image = image[:, ::-1]
        if self.jpeg_roundtrip:
            image = jpeg_roundtrip(image)
        if self.size is not None and image.shape[:2] != (self.size, self.size):
            image = (self.resize or resize_lanczos3)(image, self.size, self.size)
        if self.center_crop:
            image = center_crop(image)
        return np.ascontiguousarray(image)


def jpeg_roundtrip(image: UInt8Array, quality: int = JPEG_QUALITY) -> UInt8Array:
    """Encode as JPEG with 4:2:0 chroma and decode again (``tf.io.encode_jpeg``'s defaults).

    Args:
        image: RGB, uint8 [H, W, 3].
        quality: JPEG quality, 1..100.

    Returns:
        RGB, uint8 [H, W, 3].

    Raises:
        ImageError: The codec refused the image.
    """
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]
    encoded, data = cv2.imencode('.jpg', np.ascontiguousarray(image[:, :, ::-1]), options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR) if encoded else None
    if decoded is None:
        msg = f'an image of shape {list(image.shape)} did not survive a JPEG round trip'
        raise ImageError(msg)
    return np.ascontiguousarray(decoded[:, :, ::-1]).astype(np.uint8, copy=False)


def resize_lanczos3(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize as ``tf.image.resize(method='lanczos3', antialias=True)``, rounded to uint8.

    The aspect ratio is not kept, exactly as in training (``resize-naive``).

    Args:
        image: RGB, uint8 [H, W, 3].
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        RGB, uint8 [height, width, 3].
    """
    rows = _lanczos3_weights(image.shape[0], height)
    columns = _lanczos3_weights(image.shape[1], width)
    values = np.tensordot(rows, image.astype(np.float32), axes=(1, 0))
    values = np.einsum('xj,yjc->yxc', columns, values, optimize=True)
    result: UInt8Array = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


def resize_bicubic(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Resize as Pillow does, antialiased: what the native training code's transforms use.

    The aspect ratio is not kept, exactly as in training (``resize-naive``).

    Args:
        image: RGB, uint8 [H, W, 3].
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        RGB, uint8 [height, width, 3].
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC))


@lru_cache(maxsize=16)
def _lanczos3_weights(source: int, target: int) -> Float32Array:
    """Return the interpolation matrix [target, source] of one axis; half-pixel centres."""
    inverse_scale = source / target
    kernel_scale = max(inverse_scale, 1.0)
    centres = (np.arange(target) + 0.5) * inverse_scale
    reach = _LANCZOS_RADIUS * kernel_scale
    first = np.clip(np.ceil(centres - reach - 0.5), 0, source - 1)[:, None]
    last = np.clip(np.floor(centres + reach - 0.5), 0, source - 1)[:, None]
    pixels = np.arange(source)[None, :]
    distance = np.abs(pixels + 0.5 - centres[:, None]) / kernel_scale
    weights = np.sinc(distance) * np.sinc(distance / _LANCZOS_RADIUS)
    weights[(pixels < first) | (pixels > last) | (distance > _LANCZOS_RADIUS)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    result: Float32Array = weights.astype(np.float32)
    result.setflags(write=False)
    return result


def center_crop(image: UInt8Array, area: float = CROPPED_AREA) -> UInt8Array:
    """Crop the centre and enlarge it to the old size (``tf.image.crop_and_resize``, bilinear).

    Args:
        image: RGB, uint8 [H, W, 3].
        area: Share of the area that is kept.

    Returns:
        RGB, uint8 [H, W, 3].
    """
    side = np.sqrt(np.float32(area))
    values = image.astype(np.float32) * np.float32(1 / 255)
    for axis in (0, 1):
        values = _sample_linearly(values, axis, side)
    values = np.clip(values, 0.0, 1.0)
    scaled = np.minimum(values * np.float32(255.5), np.float32(255.0))
    result: UInt8Array = scaled.astype(np.uint8)
    return result


def _sample_linearly(values: Float32Array, axis: int, side: np.float32) -> Float32Array:
    """Sample one axis at its own length over the central share ``side``, corners aligned."""
    size = values.shape[axis]
    start = (np.float32(1) - side) / np.float32(2)
    positions = start * np.float32(size - 1) + np.arange(size, dtype=np.float32) * side
    lower = np.floor(positions).astype(np.intp)
    upper = np.minimum(lower + 1, size - 1)
    share = (positions - lower).astype(np.float32)
    share = share[:, None, None] if axis == 0 else share[None, :, None]
    below, above = np.take(values, lower, axis=axis), np.take(values, upper, axis=axis)
    result: Float32Array = below + (above - below) * share
    return result
