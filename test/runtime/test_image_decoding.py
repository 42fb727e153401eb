"""Images come out as RGB whatever the encoding, and bad ones with a sentence."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

from safe_vla_ros.errors import ImageError
from safe_vla_ros.runtime.image_decoding import CompressedImage, RawImage, decode_image

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = np.full((5, 7, 1), 9, np.uint8)
ENCODED = {
    'rgb8': RGB,
    'bgr8': RGB[..., ::-1],
    'rgba8': np.concatenate([RGB, ALPHA], 2),
    'bgra8': np.concatenate([RGB[..., ::-1], ALPHA], 2),
}


def raw(pixels: np.ndarray, encoding: str, padding: int = 0, **changes: object) -> RawImage:
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.concatenate([rows, np.full((height, padding), 77, np.uint8)], axis=1)
    values = {
        'encoding': encoding,
        'height': height,
        'width': width,
        'step': rows.shape[1],
        'is_bigendian': False,
        'data': array.array('B', rows.tobytes()),
        **changes,
    }
    return RawImage(**values)


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


def smooth_image() -> np.ndarray:
    """Return an image that JPEG keeps nearly as it is, with a clear difference of red and blue."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[..., 0] = 200
    image[..., 1] = np.arange(48)[None] * 2
    image[..., 2] = 30
    return image


@pytest.mark.parametrize('encoding', sorted(ENCODED))
@pytest.mark.parametrize('padding', [0, 1, 13])
@pytest.mark.parametrize('is_bigendian', [False, True])
def test_colour_images_come_out_as_rgb(encoding: str, padding: int, is_bigendian: bool) -> None:
    image = raw(ENCODED[encoding], encoding, padding, is_bigendian=is_bigendian)
    decoded = decode_image(image)
    assert decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize('padding', [0, 3])
def test_grey_is_repeated(padding: int) -> None:
    grey = RGB[..., :1]
    decoded = decode_image(raw(grey, 'mono8', padding))
    np.testing.assert_array_equal(decoded, np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview, lambda b: array.array('B', b)])
def test_any_kind_of_bytes_will_do(kind: object) -> None:
    image = raw(RGB, 'rgb8', data=kind(RGB.tobytes()))
    np.testing.assert_array_equal(decode_image(image), RGB)


def test_the_decoded_image_does_not_follow_the_message() -> None:
    data = bytearray(RGB.tobytes())
    decoded = decode_image(raw(RGB, 'rgb8', data=data))
    data[0] ^= 255
    np.testing.assert_array_equal(decoded, RGB)


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'height': 0}, '7 x 0 pixels; both must be at least 1'),
        ({'width': 0}, '0 x 5 pixels'),
        ({'step': 20}, 'step 20; rgb8 of width 7 needs at least 21'),
        ({'data': RGB.tobytes()[:-1]}, '104 bytes of data; step 21 times height 5 makes 105'),
        ({'data': b''}, '0 bytes of data'),
        ({'height': 4}, '105 bytes of data; step 21 times height 4 makes 84'),
        ({'encoding': 'yuv422'}, "encoding 'yuv422'; allowed are rgb8, bgr8"),
        ({'encoding': 'mono16'}, "encoding 'mono16'"),
        ({'encoding': ''}, "encoding ''"),
    ],
)
def test_a_bad_raw_image_is_refused_with_a_sentence(
    changes: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ImageError, match=sentence):
        decode_image(raw(RGB, **{'encoding': 'rgb8', **changes}))


@pytest.mark.parametrize('written_format', ['jpeg', 'jpg', 'bgr8; jpeg compressed bgr8', ''])
def test_jpeg_comes_out_as_rgb(written_format: str) -> None:
    image = smooth_image()
    data = cv2.imencode('.jpg', image[..., ::-1])[1].tobytes()
    decoded = decode_image(CompressedImage(written_format, array.array('B', data)))
    assert np.abs(decoded.astype(int) - image).max() < 12


def test_png_comes_out_exactly() -> None:
    data = cv2.imencode('.png', RGB[..., ::-1])[1]
    np.testing.assert_array_equal(decode_image(CompressedImage('png', data)), RGB)


def test_grey_and_transparent_files_have_three_channels() -> None:
    grey = cv2.imencode('.png', RGB[..., 0])[1]
    assert decode_image(CompressedImage('png', grey)).shape == (5, 7, 3)
    with_alpha = cv2.imencode('.png', np.concatenate([RGB[..., ::-1], ALPHA], 2))[1]
    np.testing.assert_array_equal(decode_image(CompressedImage('png', with_alpha)), RGB)


def test_a_file_written_from_rgb_says_so_in_its_format() -> None:
    data = cv2.imencode('.png', RGB)[1]
    decoded = decode_image(CompressedImage('rgb8; png compressed rgb8', data))
    np.testing.assert_array_equal(decoded, RGB)


def test_bad_files_are_refused_with_a_sentence() -> None:
    jpeg = cv2.imencode('.jpg', smooth_image())[1].tobytes()
    png = cv2.imencode('.png', RGB)[1].tobytes()
    with pytest.raises(ImageError, match='cut off'):
        decode_image(CompressedImage('jpeg', jpeg[: len(jpeg) * 2 // 3]))
    with pytest.raises(ImageError, match='cut off'):
        decode_image(CompressedImage('png', png[:20]))
    with pytest.raises(ImageError, match='cannot be decoded'):
        decode_image(CompressedImage('png', flip(png, len(png) // 2)))
    with pytest.raises(ImageError, match="format 'jpeg' and 0 bytes"):
        decode_image(CompressedImage('jpeg', b''))
    with pytest.raises(ImageError, match='allowed are jpeg and png'):
        decode_image(CompressedImage('16UC1; compressedDepth', b'\x00' * 40))


def test_a_fallback_is_asked_for_other_encodings_only() -> None:
    asked = []

    def fallback(image: object) -> np.ndarray:
        asked.append(image)
        return RGB

    decode_image(raw(RGB, 'rgb8'), fallback)
    assert not asked
    np.testing.assert_array_equal(decode_image(raw(RGB, 'yuv422'), fallback), RGB)
    assert len(asked) == 1


def test_a_fallback_that_fails_or_returns_nonsense_is_an_image_error() -> None:
    def failing(_: object) -> np.ndarray:
        raise RuntimeError('no such conversion')

    with pytest.raises(ImageError, match=r"'yuv422'.*no such conversion"):
        decode_image(raw(RGB, 'yuv422'), failing)
    with pytest.raises(ImageError, match=r'float64 \[2, 2\]; allowed is uint8'):
        decode_image(raw(RGB, 'yuv422'), lambda _: np.zeros((2, 2)))


@pytest.mark.parametrize(
    'pixels', [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))]
)
def test_an_array_must_be_an_rgb_image(pixels: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_image(RGB), RGB)
    with pytest.raises(ImageError, match='allowed is uint8'):
        decode_image(pixels)
