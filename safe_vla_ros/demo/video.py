"""Videos and the picture: the camera's view beside the overlays that the node published."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from safe_vla_ros.errors import OutputError
from safe_vla_ros.whole_files import written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from safe_vla_ros.types import UInt8Array

VIEW_PX = 400
BAR_PX = 40
LINE_PX = 16
"""Height of a line of small print; even, as video needs it."""

GAP_PX = 8
BACKGROUND = 24
FONT, SMALL = cv2.FONT_HERSHEY_SIMPLEX, 0.36
PICTURES = 3
MOMENT = 40
"""Which moment the picture shows, percent of an episode: the hand is on its way or at the bowl."""

TICK = Fraction(1, 1000)

Stamped = tuple[float, 'UInt8Array']


@dataclass(frozen=True)
class Film:
    """What was seen during one episode.

    Attributes:
        caption: A sentence for the bar below.
        camera: Stamps (s) and images of a camera, uint8 [H, W, 3] RGB.
        overlays: The same of the saliency overlay of every camera; stamps are those of the source
            images.
        credits: Whose scenes and objects they are.
    """

    caption: str
    camera: Sequence[Stamped]
    overlays: Sequence[Sequence[Stamped]]
    credits: str = ''

    @property
    def complete(self) -> bool:
        """Whether there is something to see in every view."""
        return bool(self.camera) and all(self.overlays)


def write_video(film: Film, path: Path, rate_hz: float) -> bool:
    """Write an H.264 file.

    Args:
        film: What to show.
        path: File to write.
        rate_hz: Nominal pictures per second; the stamps say when each is shown.

    Returns:
        Whether there was anything to write.

    Raises:
        OutputError: The file cannot be written.
    """
    if not film.camera:
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            _encode(film, partial, rate_hz)
    except (OSError, av.FFmpegError) as error:
        msg = f'{path} cannot be written: {error}'
        raise OutputError(msg) from error
    return True


def _encode(film: Film, path: Path, rate_hz: float) -> None:
    first_s = film.camera[0][0]
    with av.open(str(path), 'w', format='mp4') as container:
        stream = container.add_stream('libx264', rate=max(1, round(rate_hz)))
        stream.pix_fmt = 'yuv420p'
        stream.options = {'crf': '20', 'preset': 'veryfast'}
        stream.height, stream.width = compose(film, first_s).shape[:2]
        stream.codec_context.time_base = TICK
        for stamp_s, _ in film.camera:
            picture = av.VideoFrame.from_ndarray(compose(film, stamp_s), format='rgb24')
            # Pictures are shown when they were taken, also where some are missing.
            picture.pts, picture.time_base = round((stamp_s - first_s) / TICK), TICK
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def compose(film: Film, stamp_s: float) -> UInt8Array:
    """Put camera and overlays of one moment side by side, caption and credits below.

    Returns:
        uint8 [H, W, 3], the same size at every moment of a film.
    """
    views = _views(film, stamp_s)
    height = max(map(len, views))
    gap = np.full((height, GAP_PX, 3), BACKGROUND, np.uint8)
    pieces = [piece for view in views for piece in (_pad(view, height), gap)][:-1]
    row = np.concatenate(pieces, axis=1)
    caption = f'{_elapsed(film, stamp_s)}   {film.caption}'
    width = row.shape[1]
    return np.concatenate([row, _bar(caption, width), _small_print(film.credits, width)])


def write_picture(films: Sequence[Film], path: Path) -> bool:
    """Write one PNG with a moment of up to three films.

    Returns:
        Whether there was anything to show.

    Raises:
        OutputError: The file cannot be written.
    """
    shown = [film for film in films if film.complete][:PICTURES]
    if not shown:
        return False
    columns = []
    for film in shown:
        first = film.overlays[0]
        camera, *overlays = _views(film, first[len(first) * MOMENT // 100][0])
        columns.append(np.concatenate([camera, _bar(film.caption, VIEW_PX), *overlays]))
    height = max(map(len, columns))
    gap = np.full((height, GAP_PX, 3), BACKGROUND, np.uint8)
    pieces = [piece for column in columns for piece in (_pad(column, height), gap)][:-1]
    row = np.concatenate(pieces, axis=1)
    picture = np.concatenate([row, _small_print(shown[0].credits, row.shape[1])])
    encoded, data = cv2.imencode('.png', picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if encoded:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(path) as partial:
                partial.write_bytes(data.tobytes())
        except OSError as error:
            msg = f'{path} cannot be written: {error}'
            raise OutputError(msg) from error
    return bool(encoded)


def _newest(frames: Sequence[Stamped], stamp_s: float) -> UInt8Array | None:
    """Return the newest image that is not younger than a stamp; None when there is none."""
    older = [image for at_s, image in frames if at_s <= stamp_s + 1e-6]
    return older[-1] if older else None


def _elapsed(film: Film, stamp_s: float) -> str:
    return f'{stamp_s - film.camera[0][0]:5.2f} s'


def _views(film: Film, stamp_s: float) -> list[UInt8Array]:
    """Return camera and overlays of a moment, ``VIEW_PX`` wide; dark before the first overlay."""
    camera = _newest(film.camera, stamp_s)
    views = [_scale(film.camera[0][1] if camera is None else camera)]
    for overlay in film.overlays:
        newest = _newest(overlay, stamp_s)
        sample = overlay[0][1] if overlay else film.camera[0][1]
        dark = np.full((_height(sample), VIEW_PX, 3), BACKGROUND, np.uint8)
        views.append(dark if newest is None else _scale(newest))
    return views


def _height(image: UInt8Array) -> int:
    """Return the height of an image that is ``VIEW_PX`` wide; even, as video needs it."""
    height, width = image.shape[:2]
    return 2 * round(VIEW_PX * int(height) / int(width) / 2)


def _scale(image: UInt8Array) -> UInt8Array:
    method = cv2.INTER_AREA if image.shape[1] > VIEW_PX else cv2.INTER_CUBIC
    resized = cv2.resize(image, (VIEW_PX, _height(image)), interpolation=method)
    return np.asarray(resized, dtype=np.uint8)


def _bar(text: str, width: int) -> UInt8Array:
    """Return a dark bar with a line of text, in letters that let it fit."""
    bar = np.full((BAR_PX, width, 3), BACKGROUND, np.uint8)
    size = 0.45 * min(1.0, (width - 16) / max(_text_width(text, 0.45), 1))
    cv2.putText(bar, text, (8, 26), FONT, size, (235,) * 3, 1, cv2.LINE_AA)
    return bar


def _small_print(text: str, width: int) -> UInt8Array:
    """Return a dark bar with as many small lines as the text needs."""
    lines = ['']
    for word in text.split():
        longer = f'{lines[-1]} {word}'.strip()
        if _text_width(longer, SMALL) > width - 16:
            lines.append(word)
        else:
            lines[-1] = longer
    bar = np.full((LINE_PX * len(lines) + 6, width, 3), BACKGROUND, np.uint8)
    for row, line in enumerate(lines, start=1):
        cv2.putText(bar, line, (8, LINE_PX * row), FONT, SMALL, (200,) * 3, 1, cv2.LINE_AA)
    return bar


def _text_width(text: str, size: float) -> int:
    return int(cv2.getTextSize(text, FONT, size, 1)[0][0])


def _pad(image: UInt8Array, height: int) -> UInt8Array:
    """Lengthen an image to a height with the background, or cut it."""
    missing = np.full((max(0, height - len(image)), image.shape[1], 3), BACKGROUND, np.uint8)
    return np.concatenate([image[:height], missing])
