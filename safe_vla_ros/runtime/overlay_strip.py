"""The strip below a saliency overlay: what pruning did, in words and on a gauge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from safe_vla_ros.types import UInt8Array

FONT = cv2.FONT_HERSHEY_SIMPLEX
BACKGROUND = 24
BRIGHT = (255, 255, 255)
SOFT = (190, 190, 190)


@dataclass(frozen=True)
class StripFacts:
    """What the strip of one camera's overlay says.

    Attributes:
        method: Pruner that ran.
        kept: Visual tokens of this camera that were kept.
        total: Visual tokens of this camera.
        kept_of_all: Visual tokens of all cameras that were kept.
        total_of_all: Visual tokens of all cameras.
        similarity: kappa, -1..1; None without a forecast.
        threshold: gamma, -1..1.
        key_step: Whether this step renewed the saliency reference.
        reason: Why, on a key step.
        episode: Number of the episode.
        step: Number of the inference within the episode.
    """

    method: str
    kept: int
    total: int
    kept_of_all: int
    total_of_all: int
    similarity: float | None
    threshold: float
    key_step: bool
    reason: str | None
    episode: int
    step: int


def strip_height(width: int) -> int:
    """Return the height of the strip below a picture of this width, pixels."""
    return 3 * _line_height(width) + 2 * _margin(width)


def draw_strip(strip: UInt8Array, facts: StripFacts) -> None:
    """Draw the facts into a strip.

    Args:
        strip: uint8 [at least strip_height(W), W, 3]; overwritten.
        facts: What to say.
    """
    strip[:] = BACKGROUND
    width = strip.shape[1]
    line, margin = _line_height(width), _margin(width)
    tokens = f'kept {facts.kept}/{facts.total}'
    if facts.total_of_all != facts.total:
        tokens += f', all {facts.kept_of_all}/{facts.total_of_all}'
    _put_pair(strip, margin, facts.method, tokens)
    episode = f'ep {facts.episode} step {facts.step}'
    if facts.similarity is None:
        _put_pair(strip, margin + line, 'no forecast', episode)
    else:
        relation = '<' if facts.similarity < facts.threshold else '>='
        kappa = f'kappa {facts.similarity:.2f} {relation} {facts.threshold:.2f}'
        _put_pair(strip, margin + line, kappa, episode)
    last = strip[margin + 2 * line :]
    if facts.key_step:
        last[:] = 255
        reason = f'KEY STEP: {facts.reason}' if facts.reason else 'KEY STEP'
        _put(last, margin // 2, reason, left=margin, room=width - 2 * margin, colour=(0, 0, 0))
    elif facts.similarity is not None:
        _gauge(last, facts.similarity, facts.threshold)


def _line_height(width: int) -> int:
    return max(15, round(width / 27))


def _margin(width: int) -> int:
    return max(3, width // 128)


@lru_cache(maxsize=64)
def _font_scale(line: int) -> float:
    """Return the largest scale at which capitals and digits fill 60 % of a line."""
    for scale in np.arange(2.0, 0.3, -0.02):
        (_, height), _ = cv2.getTextSize('K0', FONT, float(scale), 1)
        if height <= 0.6 * line:
            return float(scale)
    return 0.3


@lru_cache(maxsize=512)
def _text_width(text: str, scale: float) -> int:
    (width, _), _ = cv2.getTextSize(text, FONT, scale, 1)
    return int(width)


def _put_pair(strip: UInt8Array, top: int, left_text: str, right_text: str) -> None:
    """Put one text at the left end of a line and one at its right end."""
    width = strip.shape[1]
    margin, scale = _margin(width), _font_scale(_line_height(width))
    right_width = min(_text_width(right_text, scale), round(0.65 * width))
    right = width - margin - right_width
    _put(strip, top, left_text, left=margin, room=right - 2 * margin, colour=BRIGHT)
    _put(strip, top, right_text, left=right, room=right_width + 1, colour=SOFT)


def _put(
    strip: UInt8Array,
    top: int,
    text: str,
    *,
    left: int,
    room: int,
    colour: tuple[int, int, int],
) -> None:
    """Put text on a line, made smaller when it is wider than its room."""
    line = _line_height(strip.shape[1])
    scale = _font_scale(line)
    needed = _text_width(text, scale)
    if needed > room:
        scale *= max(room, 1) / needed
    baseline = top + round(0.78 * line)
    cv2.putText(strip, text, (left, baseline), FONT, scale, colour, 1, cv2.LINE_AA)


def _gauge(strip: UInt8Array, similarity: float, threshold: float) -> None:
    """Draw kappa as a bar from 0 to 1 with a mark at gamma."""
    height, width = strip.shape[:2]
    margin = _margin(width)
    top, bottom = margin, height - 2 * margin
    span: int = width - 2 * margin - 1

    def column(value: float) -> int:
        return margin + round(span * min(max(value, 0.0), 1.0))

    middle = (top + bottom) // 2
    half = max(2, (bottom - top) // 6)
    strip[middle - half : middle + half, margin : margin + span] = 80
    strip[middle - half : middle + half, margin : column(similarity)] = 200
    mark = column(threshold)
    strip[top:bottom, max(mark - 1, 0) : mark + 1] = 255
