"""What a soak found: its checks, and a picture of memory, threads, speed and events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

LARGEST_GROWTH = 0.01
"""Of resident memory, from the first to the last window of the settled samples."""

WINDOW = 0.2
"""Share of the settled samples in each of the two windows."""

FEWEST_SAMPLES = 25
"""Fewer settled samples than this say nothing about memory."""

WIDTH, PANEL, LEFT, RIGHT, TOP = 1100, 150, 70, 20, 26
INK, GRID, BLUE, ORANGE, GREEN = (40, 40, 40), (225, 225, 225), (178, 114, 0), (0, 94, 213), (
    115, 158, 0)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """What the node's process held at one moment.

    Attributes:
        time_s: Since the begin of the soak.
        resident_mib: Memory.
        threads, files: Threads and open file descriptors.
        speed_m_s: Largest commanded speed since the last sample.
        settled: Whether the node was active and said `running`.
    """

    time_s: float
    resident_mib: float
    threads: int
    files: int
    speed_m_s: float
    settled: bool


def growth(samples: Sequence[Sample]) -> float | None:
    """Return by which share memory grew: medians of the first and the last window.

    None where there are too few samples to tell.
    """
    if len(samples) < FEWEST_SAMPLES:
        return None
    held = [sample.resident_mib for sample in samples]
    size = max(1, round(WINDOW * len(held)))
    return float(np.median(held[-size:]) / np.median(held[:size]) - 1.0)


def medians(resident_mib: Sequence[float], parts: int = 10) -> list[float]:
    """Return the median memory of each part of a run, from its start."""
    return [
        round(float(np.median(part)), 1)
        for part in np.array_split(resident_mib, parts)
        if part.size
    ]


def checks(
    samples: Sequence[Sample], violations: Sequence[str], unanswered: str
) -> dict[str, bool | None]:
    """Judge a soak; None where it was too short to judge.

    Args:
        samples: The settled ones after the warm-up.
        violations: Of the rules of commands.
        unanswered: What the node did not do; empty when it did everything.
    """
    grew = growth(samples)
    return {
        'memory': None if grew is None else grew < LARGEST_GROWTH,
        'threads': len({sample.threads for sample in samples}) <= 1,
        'files': len({sample.files for sample in samples}) <= 1,
        'commands': not violations,
        'answers': not unanswered,
    }


def draw(path: Path, samples: Sequence[Sample], events: Sequence[tuple[float, str]]) -> None:
    """Draw the samples and the events over time.

    Args:
        path: PNG to write.
        samples: All of them, in order.
        events: When each one began, since the begin of the soak, and its name.
    """
    end_s = max(sample.time_s for sample in samples)
    times_s = [sample.time_s for sample in samples]
    panels = [
        _panel('resident memory, MiB', end_s, times_s, [s.resident_mib for s in samples], BLUE),
        _panel('threads', end_s, times_s, [s.threads for s in samples], ORANGE),
        _panel('open files', end_s, times_s, [s.files for s in samples], ORANGE),
        _panel('commanded speed, m/s', end_s, times_s, [s.speed_m_s for s in samples], GREEN),
        _events(end_s, events),
    ]
    cv2.imwrite(str(path), np.concatenate(panels))


def _panel(
    title: str,
    end_s: float,
    times_s: Sequence[float],
    values: Sequence[float],
    colour: tuple[int, int, int],
) -> np.ndarray:
    picture, bottom = _empty(PANEL, end_s), PANEL - 18
    low, high = 0.0, 1.1 * max(*values, 1e-6)
    for value in np.linspace(low, high, 4)[1:]:
        y = round(bottom - (bottom - TOP) * value / high)
        cv2.line(picture, (LEFT, y), (WIDTH - RIGHT, y), GRID, 1)
        _write(picture, f'{value:.3g}', 8, y + 4)
    points = [
        (_x(time_s, end_s), round(bottom - (bottom - TOP) * value / high))
        for time_s, value in zip(times_s, values, strict=True)
    ]
    cv2.polylines(picture, [np.array(points, np.int32)], False, colour, 1, cv2.LINE_AA)
    _write(picture, title, LEFT, 16)
    return picture


def _events(end_s: float, events: Sequence[tuple[float, str]]) -> np.ndarray:
    names = sorted({name for _, name in events})
    picture = _empty(TOP + 18 * len(names) + 26, end_s)
    for row, name in enumerate(names):
        y = TOP + 18 * row + 8
        _write(picture, name, LEFT + 4, y + 4)
        for time_s in (time_s for time_s, other in events if other == name):
            x = _x(time_s, end_s)
            cv2.line(picture, (x, y - 6), (x, y + 6), INK, 1)
    _write(picture, 'events; time in minutes below', LEFT, 16)
    for minute in np.arange(0.0, end_s / 60.0, max(1.0, round(end_s / 600.0))):
        _write(picture, f'{minute:g}', _x(60.0 * minute, end_s) - 4, picture.shape[0] - 8)
    return picture


def _empty(height: int, end_s: float) -> np.ndarray:
    picture = np.full((height, WIDTH, 3), 255, np.uint8)
    cv2.rectangle(picture, (LEFT, TOP), (WIDTH - RIGHT, height - 18), GRID, 1)
    return picture


def _x(time_s: float, end_s: float) -> int:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * time_s / max(end_s, 1e-9))


def _write(picture: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
