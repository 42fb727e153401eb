"""JPEG and PNG files: looked at before they are decoded, and decoded without a word on stderr.

What a file says about its size is read and bounded before a decoder allocates anything. The decoder
gets only the parts that make the picture: comments, profiles and thumbnails can hold anything, and
decoders have opinions about them. Pillow decodes, because OpenCV's libjpeg and libpng write their
opinions straight to the process's stderr.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import JpegImagePlugin, PngImagePlugin

from safe_vla_ros.errors import ImageError

if TYPE_CHECKING:
    from safe_vla_ros.types import UInt8Array

MAX_PIXELS = 40_000_000
"""Pixels of the largest image that is decoded; more than any camera of a robot has."""

MAX_FILE_BYTES = 64 * 2**20
"""Length of the longest compressed image that is looked at."""

MAX_SCANS = 20
"""Scans of a progressive JPEG; encoders write about ten, and each costs a pass over all pixels."""

_MAX_PARTS = 20_000
_JPEG_START, _PNG_START = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_JPEG_PARTS = {*_FRAMES, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE}
"""Frame, Huffman tables, quantisation tables, restart interval, JFIF and Adobe's colour space."""

_PNG_PARTS = {b'IHDR', b'PLTE', b'IDAT', b'IEND'}
_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


class ImageFile(NamedTuple):
    """A compressed image whose header has been read and allowed.

    Attributes:
        kind: ``JPEG`` or ``PNG``.
        width, height: Size that the header declares, pixels.
        parts: The bytes of the file that make the picture.
    """

    kind: str
    width: int
    height: int
    parts: tuple[memoryview, ...]


def is_image_file(data: memoryview) -> bool:
    """Tell whether bytes begin as a JPEG or PNG does."""
    return bytes(data[:8]).startswith((_JPEG_START, _PNG_START))


def check_size(width: int, height: int) -> None:
    """Refuse a size that no image to decode has.

    Raises:
        ImageError: A side is below 1 pixel, or the image has more than ``MAX_PIXELS``.
    """
    if height < 1 or width < 1:
        raise ImageError(f'image is {width} x {height} pixels; both must be at least 1')
    if height * width > MAX_PIXELS:
        raise ImageError(
            f'image is {width} x {height} pixels; allowed are {MAX_PIXELS // 10**6} megapixels'
        )


def read_image_file(data: memoryview) -> ImageFile:
    """Read the header of a JPEG or PNG and find the parts of it; nothing is decoded.

    Args:
        data: The whole file, bytes.

    Raises:
        ImageError: It is longer or larger than allowed, broken, or of a kind that cameras do not
            send.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ImageError(
            f'compressed image has {len(data)} bytes; allowed are {MAX_FILE_BYTES // 2**20} MiB'
        )
    kind = 'PNG' if bytes(data[:8]) == _PNG_START else 'JPEG'
    try:
        return _read_png(data) if kind == 'PNG' else _read_jpeg(data)
    except struct.error:
        raise ImageError(f'{kind} image of {len(data)} bytes is cut off') from None


def decode_image_file(data: memoryview) -> UInt8Array:
    """Decode a JPEG or PNG.

    Args:
        data: The whole file, bytes.

    Returns:
        uint8 [H, W, 3], channels in the order of the file. Alpha is dropped, grey repeated.

    Raises:
        ImageError: The file is not allowed (see ``read_image_file``) or cannot be decoded.
    """
    file = read_image_file(data)
    kind = PngImagePlugin.PngImageFile if file.kind == 'PNG' else JpegImagePlugin.JpegImageFile
    try:
        with kind(io.BytesIO(b''.join(file.parts))) as picture:
            if picture.mode.startswith('I'):
                grey = (np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(picture.convert('RGB'))
    except Exception as error:  # each decoder of the library raises what it likes
        raise ImageError(
            f'{file.kind} image of {len(data)} bytes cannot be decoded: {error}'
        ) from error


def _read_png(data: memoryview) -> ImageFile:
    length, name, width, height, *details = struct.unpack_from('>I4sII5B', data, 8)
    depth, colour, compression, filtering, interlacing = details
    known = depth in _PNG_DEPTHS.get(colour, ()) and interlacing in (0, 1)
    if (length, name, compression, filtering) != (13, b'IHDR', 0, 0) or not known:
        raise ImageError(f'PNG image of {len(data)} bytes cannot be decoded: its header is broken')
    check_size(width, height)
    parts, position = [data[:8]], 8
    for _ in range(_MAX_PARTS):
        length, name = struct.unpack_from('>I4s', data, position)
        end = position + length + 12
        if end > len(data):
            raise ImageError(f'PNG image of {len(data)} bytes is cut off')
        if name == b'IHDR' and position > 8:
            raise ImageError('PNG image has two headers')
        if name in _PNG_PARTS:
            parts.append(data[position:end])
        if name == b'IEND':
            return ImageFile('PNG', width, height, tuple(parts))
        position = end
    raise ImageError(f'PNG image has more than {_MAX_PARTS} chunks')


def _read_jpeg(data: memoryview) -> ImageFile:
    parts, position, size = [data[:2]], 2, None
    for _ in range(_MAX_PARTS):
        start, marker = struct.unpack_from('BB', data, position)
        if start != 0xFF or marker in (0x00, _END):
            raise ImageError(f'JPEG image is broken: {start:02x} {marker:02x} is no segment')
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from('>H', data, position + 2)
        if marker == _SCAN:
            if size is None:
                raise ImageError('JPEG image has no frame header before its pixels')
            _check_scans(data[position:])
            return ImageFile('JPEG', *size, (*parts, data[position:]))
        if marker in _OTHER_FRAMES:
            raise ImageError('JPEG image is arithmetic or lossless; allowed are Huffman coded ones')
        if marker in _FRAMES:
            if size is not None:
                raise ImageError('JPEG image has two frame headers')
            size = _read_frame(data, position)
        if marker in _JPEG_PARTS:
            parts.append(data[position : position + 2 + length])
        position += 2 + length
    raise ImageError(f'JPEG image has more than {_MAX_PARTS} segments')


def _read_frame(data: memoryview, position: int) -> tuple[int, int]:
    precision, height, width, components = struct.unpack_from('>BHHB', data, position + 4)
    if precision != 8 or components not in (1, 3, 4):
        raise ImageError(
            f'JPEG image has {components} components of {precision} bits; allowed are 1, 3 or 4 '
            'of 8 bits'
        )
    check_size(width, height)
    return width, height


def _check_scans(pixels: memoryview) -> None:
    coded = bytes(pixels)
    if b'\xff\xd9' not in coded[len(coded) // 2 :]:
        raise ImageError(f'JPEG image is cut off: it has no end marker after {len(coded)} bytes')
    if coded.count(b'\xff\xda') > MAX_SCANS:
        raise ImageError(f'JPEG image has more than {MAX_SCANS} scans')
