"""The saliency overlay: what the policy looks at, drawn over what the camera sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from safe_vla_ros.runtime.overlay_strip import StripFacts, draw_strip, strip_height

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from safe_vla_ros.types import (
        BoolArray,
        Float32Array,
        PolicySettings,
        PruningRecord,
        UInt8Array,
    )

MIN_DISPLAY_SIDE = 224
"""Images whose shorter side has fewer pixels are enlarged by a whole factor for display."""

MAX_ENLARGED_SIDE = 1280
"""No image is enlarged beyond this width or height, pixels."""

HIGHEST_SHOWN_QUANTILE = 0.98
"""Scores above this quantile share the brightest colour: attention sinks would hide the rest."""

DIM = 0.4
"""Brightness that is left of a dropped token, and of a stale one from ``OLD`` on."""

FRESH_DIM = 0.8
"""Brightness that is left of a token that was computed one step ago."""

OLD = 10
"""Age in steps from which a stale token is as dark as it gets."""


@dataclass(frozen=True)
class TokenArea:
    """Where in the camera image the token grid lies.

    Attributes:
        crop_fraction: Side of the centred crop that the model sees, as a share of the image's
            side, 0..1; 1 when it sees the whole image.
        rotate_180: Whether the model sees the image upside down.
        mirror: Whether the model sees left and right exchanged.
    """

    crop_fraction: float = 1.0
    rotate_180: bool = False
    mirror: bool = False

    @classmethod
    def of(cls, settings: PolicySettings) -> TokenArea:
        """Return where the tokens of a policy with these settings lie.

        ``center_crop`` keeps the central 90 % of the area (``image.center_crop``).
        """
        fraction = 0.9**0.5 if settings.center_crop else 1.0
        return cls(fraction, settings.rotate_180, settings.mirror)


WHOLE_IMAGE = TokenArea()


def overlay_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of the overlay of an image of this size, pixels.

    The picture comes first and the strip lies below it. Height and width depend on the image's
    size only, never on the state, and are even, so that the overlays of one camera make a video.
    """
    rows, columns = _display_size(height, width)
    total = rows + strip_height(columns)
    return total + total % 2, columns + columns % 2


def score_range(scores: Mapping[str, Float32Array]) -> tuple[float, float] | None:
    """Return the scores drawn darkest and brightest, jointly for all cameras of one inference.

    Tokens of all cameras compete for the same places, so their colours are comparable only on
    one scale.

    Args:
        scores: ``PruningRecord.scores``, float32 [rows, columns] by camera.

    Returns:
        Lowest score and ``HIGHEST_SHOWN_QUANTILE`` of the scores; None when there are none.
    """
    values = [grid.ravel() for grid in scores.values() if grid.size]
    if not values:
        return None
    together = np.concatenate(values)
    return float(together.min()), float(np.quantile(together, HIGHEST_SHOWN_QUANTILE))


def render_record(
    image: UInt8Array,
    record: PruningRecord,
    camera: str,
    *,
    episode: int,
    step: int,
    alpha: float = 0.5,
    area: TokenArea = WHOLE_IMAGE,
) -> UInt8Array:
    """Draw one camera's part of a pruning record over its image.

    Args:
        image: The camera's image, uint8 [H, W, 3] RGB; left as it is.
        record: What pruning did at the inference that saw the image.
        camera: The camera's name in the record.
        episode: Number of the episode.
        step: Number of the inference within the episode.
        alpha: Opacity of the heat map, 0..1.
        area: Where in the image the token grid lies.

    Returns:
        The overlay, uint8 RGB of ``overlay_size(H, W)``.
    """
    facts = StripFacts(
        method=record.method,
        kept=record.kept[camera],
        total=record.total[camera],
        kept_of_all=sum(record.kept.values()),
        total_of_all=sum(record.total.values()),
        similarity=record.similarity,
        threshold=record.threshold,
        key_step=record.key_step,
        reason=record.reason,
        episode=episode,
        step=step,
        residual=record.residual,
        max_staleness=record.max_staleness,
        oldest=int(record.ages[camera].max()) if record.renews else None,
    )
    return render_overlay(
        image,
        kept_mask=record.kept_masks[camera],
        scores=record.scores.get(camera),
        facts=facts,
        alpha=alpha,
        shown_range=score_range(record.scores),
        area=area,
        ages=record.ages.get(camera),
    )


def render_overlay(
    image: UInt8Array,
    *,
    kept_mask: BoolArray,
    scores: Float32Array | None,
    facts: StripFacts,
    alpha: float = 0.5,
    shown_range: tuple[float, float] | None = None,
    area: TokenArea = WHOLE_IMAGE,
    ages: Float32Array | None = None,
) -> UInt8Array:
    """Draw saliency and pruning over a camera image, with a strip of facts below it.

    Scores are a perceptually uniform heat map (viridis), tokens that were not computed are dimmed:
    dropped ones all alike, stale ones the more the older they are. The computed ones are outlined,
    and a key step has a frame and its reason in an inverted line. Brightness alone carries all of
    it, so that it also reads in greyscale.

    Args:
        image: uint8 [H, W, 3] RGB of any size from 1x1; left as it is.
        kept_mask: Which tokens were computed in every layer, bool [rows, columns].
        scores: Fused score, float32 [rows, columns]; None when the method has none.
        facts: What the strip says.
        alpha: Opacity of the heat map, 0..1.
        shown_range: Scores drawn darkest and brightest; None takes them from ``scores``.
        area: Where in the image the token grid lies.
        ages: Steps since each token was computed, float32 [rows, columns]; None when a token that
            was not computed is not seen.

    Returns:
        uint8 [overlay_size(H, W), 3] RGB.
    """
    rows, columns = _display_size(*image.shape[:2])
    height, width = overlay_size(*image.shape[:2])
    canvas = np.zeros((height, width, 3), np.uint8)
    picture = canvas[:rows, :columns]
    if image.shape[:2] == (rows, columns):
        np.copyto(picture, image)
    else:
        cv2.resize(image, (columns, rows), dst=picture, interpolation=cv2.INTER_CUBIC)

    brightness = _brightness(kept_mask, ages)
    if area.rotate_180:
        kept_mask, brightness = kept_mask[::-1, ::-1], brightness[::-1, ::-1]
        scores = scores[::-1, ::-1] if scores is not None else None
    if area.mirror:
        kept_mask, brightness = kept_mask[:, ::-1], brightness[:, ::-1]
        scores = scores[:, ::-1] if scores is not None else None
    token_part = _centred(picture, area.crop_fraction)
    blended = _blend(token_part, kept_mask, brightness, _heat(scores, shown_range), alpha)
    np.copyto(token_part, blended if kept_mask.all() else _outline(blended, kept_mask))
    if facts.key_step:
        _frame(picture)
    draw_strip(canvas[rows:], facts)
    return canvas


def _display_size(height: int, width: int) -> tuple[int, int]:
    factor = -(-MIN_DISPLAY_SIDE // min(height, width))
    factor = max(1, min(factor, MAX_ENLARGED_SIDE // max(height, width)))
    return height * factor, width * factor


def _centred(picture: UInt8Array, fraction: float) -> UInt8Array:
    height, width = picture.shape[:2]
    top = round(height * (1 - fraction) / 2)
    left = round(width * (1 - fraction) / 2)
    return picture[top : height - top, left : width - left]


def _heat(
    scores: Float32Array | None, shown_range: tuple[float, float] | None
) -> NDArray[np.float32] | None:
    """Return the colour of each token, float32 [rows, columns, 3], or None."""
    if scores is None or not scores.size:
        return None
    low, high = shown_range or score_range({'': scores}) or (0.0, 1.0)
    level = np.clip((scores - low) / max(high - low, 1e-12), 0, 1)
    return np.asarray(_viridis()[(level * 255).astype(np.uint8)], np.float32)


@lru_cache(maxsize=1)
def _viridis() -> NDArray[np.float32]:
    """Return the colours of levels 0..255, float32 [256, 3] RGB."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    coloured = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)
    return np.asarray(coloured[:, 0, ::-1], np.float32)


def _brightness(kept_mask: BoolArray, ages: Float32Array | None) -> NDArray[np.float32]:
    """Return what is left of the brightness of each token, float32 [rows, columns]."""
    if ages is None:
        return np.where(kept_mask, 1.0, DIM).astype(np.float32)
    older = np.clip((ages - 1) / (OLD - 1), 0, 1)
    stale = FRESH_DIM + (DIM - FRESH_DIM) * older
    return np.where(kept_mask, 1.0, stale).astype(np.float32)


def _blend(
    picture: UInt8Array,
    kept_mask: BoolArray,
    brightness: NDArray[np.float32],
    heat: NDArray[np.float32] | None,
    alpha: float,
) -> UInt8Array:
    """Return ``picture * gain + offset``, both constant within a token."""
    brightness = brightness[..., None]
    opacity = np.where(kept_mask, alpha, alpha / 3)[..., None] if heat is not None else 0.0
    gain = np.repeat(brightness * (1 - opacity) * 255, 3, axis=2)
    size = (picture.shape[1], picture.shape[0])
    blended = cv2.multiply(picture, _to_pixels(gain, size), scale=1 / 255)
    if heat is not None:
        blended = cv2.add(blended, _to_pixels(brightness * opacity * heat, size))
    return np.asarray(blended, np.uint8)


def _to_pixels(tokens: NDArray[np.float32], size: tuple[int, int]) -> UInt8Array:
    pixels = cv2.resize(tokens.round().astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(pixels, np.uint8)


def _outline(picture: UInt8Array, kept_mask: BoolArray) -> UInt8Array:
    """Draw a white line with a black one beside it along the border of the computed tokens."""
    size = (picture.shape[1], picture.shape[0])
    thickness = max(1, round(min(size) / 300))
    kept = cv2.resize(kept_mask.astype(np.uint8) * 255, size, interpolation=cv2.INTER_NEAREST)
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8)
    # Beyond the image counts as not computed, so that tokens at the image's edge are outlined, too.
    inside = cv2.erode(kept, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    outside = cv2.dilate(kept, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
    outlined = cv2.copyTo(np.full_like(picture, 255), kept & ~inside, picture)
    return np.asarray(cv2.copyTo(np.zeros_like(picture), outside & ~kept, outlined), np.uint8)


def _frame(picture: UInt8Array) -> None:
    """Draw the frame that marks a key step: white, with a black line on its inner side."""
    width = max(3, min(picture.shape[:2]) // 60)
    for thickness, shade in ((width + max(1, width // 3), 0), (width, 255)):
        picture[:thickness] = shade
        picture[-thickness:] = shade
        picture[:, :thickness] = shade
        picture[:, -thickness:] = shade
