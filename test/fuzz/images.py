"""Images of cameras, raw and compressed."""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
from mutations import INTEGERS, change_bytes

from safe_vla_ros.runtime.image_decoding import CHANNELS, CompressedImage, RawImage, decode_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

FORMATS = ('jpeg', 'png', 'rgb8; jpeg compressed bgr8', 'rgb8; png compressed rgb8', '', 'x' * 9999)


def compressed(_folder: Path) -> Callable[[Random], None]:
    """JPEG and PNG files of every kind, and files of other kinds."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 2)
    wide = picture.astype(np.uint16) * 256
    sources = [
        _encode('.jpg', picture),
        _encode('.jpg', picture, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        _encode('.jpg', picture, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
        _encode('.jpg', picture[..., 0]),
        _encode('.png', picture),
        _encode('.png', picture[..., 0]),
        _encode('.png', np.dstack([picture, noise[..., :1]])),
        _encode('.png', picture[..., 0], cv2.IMWRITE_PNG_BILEVEL, 1),
        _encode('.png', wide),
        _encode('.png', wide[..., 0]),
        *(_encode(suffix, picture) for suffix in ('.bmp', '.tiff', '.webp', '.gif', '.ppm')),
    ]

    def case(random: Random) -> None:
        data = random.choice(sources)
        if data.startswith(b'\x89PNG') and random.randrange(4):
            data = _change_png(random, data)
        elif data.startswith(b'\xff\xd8') and random.randrange(2):
            data = _change_jpeg(random, data)
        else:
            data = change_bytes(random, data)
        decode_image(CompressedImage(random.choice(FORMATS), data))

    return case


def raw(_folder: Path) -> Callable[[Random], None]:
    """Raw images whose fields contradict each other."""

    def case(random: Random) -> None:
        encoding = random.choice((*CHANNELS, *CHANNELS, '16UC1', 'yuv422', '', 'x' * 9999))
        sizes = [random.choice((*range(1, 9), *INTEGERS)) % 2**32 for _ in range(2)]
        row = sizes[1] * CHANNELS.get(encoding, 1)
        step = random.choice((row, row, row + 3, *INTEGERS)) % 2**32
        length = min(random.choice((step * sizes[0], step * sizes[0], 0, 1, 100)), 10**6)
        decode_image(RawImage(encoding, *sizes, step, bool(random.randrange(2)), bytes(length)))

    return case


def _encode(suffix: str, picture: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


def _change_png(random: Random, data: bytes) -> bytes:
    """Change chunks and make their checksums right again."""
    chunks, position = [], 8
    while position < len(data):
        length, name = struct.unpack_from('>I4s', data, position)
        chunks.append((name, data[position + 8 : position + 8 + length]))
        position += length + 12
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(chunks))
        name, content = chunks[at]
        kind = random.randrange(8)
        if kind == 0:
            chunks.insert(at, random.choice(chunks))
        elif kind == 1 and len(chunks) > 1:
            del chunks[at]
        elif kind == 2:
            name = random.choice((b'PLTE', b'tRNS', b'iCCP', b'gAMA', b'zTXt', b'acTL', b'fcTL'))
            chunks.insert(random.randrange(1, len(chunks) + 1), (name, random.randbytes(12)))
        elif kind == 3 and name == b'IDAT':
            pixels = bytes(random.choice((10, 10_000, 10_000_000)))
            chunks[at] = (name, zlib.compress(pixels, 1))
        elif name == b'IDAT' and kind < 6:
            pixels = zlib.decompressobj()
            with contextlib.suppress(zlib.error):
                content = zlib.compress(change_bytes(random, pixels.decompress(content), 2))
            chunks[at] = (name, content)
        else:
            chunks[at] = (name, change_bytes(random, content, 1))
        if random.randrange(4) == 0:
            name, header = chunks[0]
            size = struct.pack('>II', *(random.choice(INTEGERS) % 2**32 for _ in range(2)))
            chunks[0] = (name, size + header[8:])
        chunks = chunks or [(b'IEND', b'')]
        if kind == 3:
            break
    return data[:8] + b''.join(
        struct.pack('>I', len(content)) + name + content + _checksum(name + content)
        for name, content in chunks
    )


def _checksum(content: bytes) -> bytes:
    return struct.pack('>I', zlib.crc32(content))


def _change_jpeg(random: Random, data: bytes) -> bytes:
    """Change the declared size, or repeat or insert a segment or scan."""
    changed = bytearray(data)
    frame = max(data.find(b'\xff\xc0'), data.find(b'\xff\xc2'))
    kind = random.randrange(4)
    if kind == 0:
        size = struct.pack('>HH', *(random.choice(INTEGERS) % 2**16 for _ in range(2)))
        changed[frame + 5 : frame + 9] = size
    elif kind == 1:
        scan = data[data.rindex(b'\xff\xda') : -2]
        changed[-2:-2] = scan * random.choice((1, 15, 300))
    elif kind == 2:
        content = random.randbytes(random.randrange(200))
        marker = bytes((0xFF, random.choice((0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xFE, 0xDD, 0xC4))))
        changed[2:2] = marker + struct.pack('>H', len(content) + 2) + content
    else:
        return change_bytes(random, data[: frame + 30], 1) + data[frame + 30 :]
    return bytes(changed)
