"""A compressed image is bounded by what its header says, and its decoder says nothing on stderr."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from safe_vla_ros.errors import ImageError
from safe_vla_ros.runtime import image_decoding, image_files
from safe_vla_ros.runtime.image_decoding import CompressedImage, RawImage, decode_image

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
PICTURE = cv2.GaussianBlur(ROWS, (0, 0), 3)


def encode(suffix: str, *options: int, picture: np.ndarray = PICTURE) -> bytes:
    return cv2.imencode(suffix, picture[..., ::-1], options)[1].tobytes()


def chunk(name: bytes, content: bytes = b'') -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', check)


def png(width: int, height: int, pixels: bytes, *extra: bytes, colour: int = 2) -> bytes:
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, 0))
    content = chunk(b'IDAT', zlib.compress(pixels, 9))
    return b'\x89PNG\r\n\x1a\n' + header + b''.join(extra) + content + chunk(b'IEND')


def resized_jpeg(width: int, height: int) -> bytes:
    data = bytearray(encode('.jpg'))
    frame = data.index(b'\xff\xc0')
    data[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def decode(data: bytes) -> np.ndarray:
    return decode_image(CompressedImage('jpeg', data))


@pytest.mark.parametrize(
    ('data', 'sentence'),
    [
        (png(60_000, 60_000, bytes(100)), '60000 x 60000 pixels; allowed are 40 megapixels'),
        (png(2**31 - 1, 1, bytes(100)), '2147483647 x 1 pixels; allowed'),
        (png(0, 5, b''), 'must be at least 1'),
        (resized_jpeg(65_000, 65_000), '65000 x 65000 pixels; allowed are 40 megapixels'),
        (resized_jpeg(40, 0), 'must be at least 1'),
    ],
)
def test_a_declared_size_is_refused_before_anything_is_decoded(
    data: bytes, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(image_files, 'PngImagePlugin')
    monkeypatch.delattr(image_files, 'JpegImagePlugin')
    with pytest.raises(ImageError, match=sentence):
        decode(data)


def test_a_second_header_cannot_declare_another_size() -> None:
    huge = chunk(b'IHDR', struct.pack('>IIBBBBB', 30_000, 30_000, 8, 2, 0, 0, 0))
    with pytest.raises(ImageError, match='two headers'):
        decode(png(2, 2, bytes(14), huge))
    data = encode('.jpg')
    frame = data.index(b'\xff\xc0')
    length = 2 + int.from_bytes(data[frame + 2 : frame + 4], 'big')
    with pytest.raises(ImageError, match='two frame headers'):
        decode(data[:frame] + data[frame : frame + length] * 2 + data[frame + length :])


def test_more_scans_than_encoders_write_are_refused() -> None:
    data = encode('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert decode(data).shape == PICTURE.shape
    scan = data[data.rindex(b'\xff\xda') : -2]
    with pytest.raises(ImageError, match='more than 20 scans'):
        decode(data[:-2] + scan * 20 + data[-2:])


def test_long_data_are_refused_unread() -> None:
    data = encode('.jpg') + bytes(image_files.MAX_FILE_BYTES)
    with pytest.raises(ImageError, match='allowed are 64 MiB'):
        decode(data)


def test_the_raw_path_has_the_same_bound() -> None:
    row = 10_000
    with pytest.raises(ImageError, match='10000 x 10000 pixels; allowed are 40 megapixels'):
        decode_image(RawImage('mono8', row, row, row, False, b''))
    data = np.zeros(8 * image_files.MAX_PIXELS + 1, np.uint8)
    with pytest.raises(ImageError, match='bytes of data; allowed are 320000000'):
        decode_image(RawImage('rgb8', 1, 1, data.size, False, data))


@pytest.mark.parametrize('suffix', ['.bmp', '.tiff', '.webp', '.gif', '.jp2', '.ppm', '.hdr'])
def test_other_kinds_of_files_are_refused_whatever_their_format_says(suffix: str) -> None:
    picture = PICTURE.astype(np.float32) if suffix == '.hdr' else PICTURE
    encoded, data = cv2.imencode(suffix, picture)
    assert encoded
    with pytest.raises(ImageError, match='allowed are jpeg and png'):
        decode_image(CompressedImage('jpeg', data), lambda image: pytest.fail('was asked'))


@pytest.mark.parametrize('flags', [0, 1], ids=['baseline', 'progressive'])
def test_a_jpeg_decodes_to_the_pixels_that_opencv_gives(flags: int) -> None:
    data = encode('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, flags)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(decode(data), expected)


def test_pngs_of_every_colour_type_come_out_as_rgb() -> None:
    levels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    palette = chunk(b'PLTE', bytes(range(9)))
    clear = chunk(b'tRNS', bytes(3))
    indexed = png(3, 1, b'\0\2\1\0', palette, clear, colour=3)
    np.testing.assert_array_equal(decode(indexed)[0], [[6, 7, 8], [3, 4, 5], [0, 1, 2]])
    deep = encode('.png', picture=np.stack([levels.astype(np.uint16) * 256 + 200] * 3, 2))
    np.testing.assert_array_equal(decode(deep), np.stack([levels] * 3, 2))
    grey = cv2.imencode('.png', levels.astype(np.uint16) * 256 + 200)[1].tobytes()
    np.testing.assert_array_equal(decode(grey), np.stack([levels] * 3, 2))


def damaged() -> Iterator[bytes]:
    random = np.random.default_rng(2)
    whole = [
        encode('.jpg'),
        encode('.jpg', cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encode('.png'),
        png(2, 2, bytes(14), chunk(b'iCCP', b'x\0\0junk'), chunk(b'gAMA', b'1')),
        png(3, 1, b'\0\2\1\7', chunk(b'PLTE', bytes(9)), chunk(b'tRNS', bytes(90)), colour=3),
        png(2, 2, b'\x09' + bytes(13)),
        png(2, 2, bytes(100)),
    ]
    for data in whole:
        yield data
        for _ in range(60):
            changed = bytearray(data)
            for position in random.integers(3, len(data), random.integers(1, 4)):
                changed[position] = random.integers(256)
            yield bytes(changed)


def outcome(data: bytes) -> str:
    try:
        decode(data)
    except ImageError as error:
        return str(error)
    return 'decoded'


def test_no_decoder_writes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = [outcome(data) for data in damaged()]
    assert 'decoded' in outcomes
    assert any('cannot be decoded' in text for text in outcomes)
    assert capfd.readouterr() == ('', '')


def test_a_long_encoding_is_not_repeated_whole() -> None:
    for image in (
        RawImage('x' * 10**6, 1, 1, 3, False, bytes(3)),
        CompressedImage('x' * 10**6, b''),
    ):
        with pytest.raises(ImageError) as caught:
            image_decoding.decode_image(image)
        assert len(str(caught.value)) < 600
