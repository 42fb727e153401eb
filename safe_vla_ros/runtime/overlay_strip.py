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
        kept: Visual tokens of this camera that were computed in every layer.
        total: Visual tokens of this camera.
        kept_of_all: The same of all cameras.
        total_of_all: Visual tokens of all cameras.
        similarity: kappa, -1..1; None without a forecast.
        threshold: gamma, -1..1.
        key_step: Whether this step renewed the method's memory.
        reason: Why, on a key step.
        episode: Number of the episode.
        step: Number of the inference within the episode.
        residual: What would have stayed stale, 0..1; None without a memory.
        max_staleness: tau, 0..1; 0 is off.
        oldest: Age of this camera's oldest token in steps; None for a method that drops tokens.
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
    residual: float | None = None
    max_staleness: float = 0.0
    oldest: int | None = None

    @property
    def tokens(self) -> str:
        """What became of the tokens, in words."""
        renews = self.oldest is not None
        text = f'{"renewed" if renews else "kept"} {self.kept}/{self.total}'
        if self.total_of_all != self.total:
            text += f', all {self.kept_of_all}/{self.total_of_all}'
        return f'{text}, oldest {self.oldest}' if self.oldest else text

    @property
    def test(self) -> str:
        """What decided whether this is a key step, in words."""
        if self.residual is not None:
            text = f'residual {self.residual:.3g}'
            if not self.max_staleness:
                return text
            relation = '>' if self.residual > self.max_staleness else '<='
            return f'{text} {relation} {self.max_staleness:.3g}'
        if self.similarity is None and self.oldest is not None:
            return 'nothing stored' if self.key_step else 'no limit'
        if self.similarity is None:
            return 'no forecast'
        relation = '<' if self.similarity < self.threshold else '>='
        return f'kappa {self.similarity:.2f} {relation} {self.threshold:.2f}'

    @property
    def gauge(self) -> tuple[float, float] | None:
        """The number that decides and its limit on a scale 0..1; None where nothing is compared.

        A residual has its limit in the middle: tau is often near 0.
        """
        if self.residual is not None:
            return (self.residual / self.max_staleness / 2, 0.5) if self.max_staleness else None
        return None if self.similarity is None else (self.similarity, self.threshold)


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
    _put_pair(strip, margin, facts.method, facts.tokens)
    _put_pair(strip, margin + line, facts.test, f'ep {facts.episode} step {facts.step}')
    last = strip[margin + 2 * line :]
    if facts.key_step:
        last[:] = 255
        reason = f'KEY STEP: {facts.reason}' if facts.reason else 'KEY STEP'
        _put(last, margin // 2, reason, left=margin, room=width - 2 * margin, colour=(0, 0, 0))
    elif facts.gauge is not None:
        _gauge(last, *facts.gauge)


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


def _gauge(strip: UInt8Array, measured: float, limit: float) -> None:
    """Draw what was measured as a bar from 0 to 1 with a mark at its limit."""
    height, width = strip.shape[:2]
    margin = _margin(width)
    top, bottom = margin, height - 2 * margin
    span: int = width - 2 * margin - 1

    def column(value: float) -> int:
        return margin + round(span * min(max(value, 0.0), 1.0))

    middle = (top + bottom) // 2
    half = max(2, (bottom - top) // 6)
    strip[middle - half : middle + half, margin : margin + span] = 80
    strip[middle - half : middle + half, margin : column(measured)] = 200
    mark = column(limit)
    strip[top:bottom, max(mark - 1, 0) : mark + 1] = 255
