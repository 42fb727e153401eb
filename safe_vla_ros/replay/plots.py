"""Plots as SVG text: curves over time, bars, and bands of states."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from safe_vla_ros.runtime.states import StateName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#000000')
"""Okabe and Ito's colours, which colour-blind people tell apart."""

STATE_COLOURS: Mapping[str, str] = {
    StateName.RUNNING: '#009e73',
    StateName.WAITING: '#bbbbbb',
    StateName.STARVED: '#e69f00',
    StateName.STALE: '#d55e00',
    StateName.HALTING: '#56b4e9',
    StateName.PAUSED: '#cc79a7',
    StateName.FAILED: '#990000',
}

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 860, 58, 12, 10, 30
DASHES = ('', '6 3', '2 3', '8 3 2 3')


@dataclass(frozen=True)
class Curve:
    """Points to be joined, in order; seconds and values."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ''
    width: float = 1.4


@dataclass(frozen=True)
class Mark:
    """A vertical line at a time, with a text that shows under the pointer."""

    time_s: float
    text: str


def line_plot(
    curves: Sequence[Curve],
    *,
    duration_s: float,
    label: str,
    marks: Sequence[Mark] = (),
    height: int = 170,
    limits: tuple[float, float] | None = None,
) -> str:
    """Draw curves over time.

    Args:
        curves: What to draw; empty ones are left out.
        duration_s: Right end of the time axis, seconds.
        label: Quantity and unit.
        marks: Times to mark.
        height: Pixels.
        limits: Lowest and highest value; None takes them from the curves.

    Returns:
        An ``svg`` element; a sentence where there is nothing to draw.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return f'<p class="none">{escape(label)}: nothing was measured.</p>'
    low, high = limits or _limits([value for curve in drawn for _, value in curve.points])
    inner = height - TOP - BOTTOM
    span_s = max(duration_s, 1e-9)

    def x(time_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(time_s / span_s, 0.0), 1.0)

    def y(value: float) -> float:
        share = (value - low) / (high - low)
        return TOP + inner * (1 - min(max(share, 0.0), 1.0))

    parts = [_axes(low, high, span_s, height, label)]
    parts += [
        f'<line class="mark" x1="{x(mark.time_s):.1f}" x2="{x(mark.time_s):.1f}" y1="{TOP}" '
        f'y2="{TOP + inner}"><title>{escape(mark.text)}</title></line>'
        for mark in marks
    ]
    for curve in drawn:
        path = ' '.join(f'{x(t):.1f},{y(v):.1f}' for t, v in curve.points)
        dash = f' stroke-dasharray="{curve.dash}"' if curve.dash else ''
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{curve.colour}" '
            f'stroke-width="{curve.width}"{dash}><title>{escape(curve.name)}</title></polyline>'
        )
    return _svg(parts, height) + legend(drawn, has_marks=bool(marks))


def as_steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points of a curve that keeps each value until the next point."""
    steps: list[tuple[float, float]] = []
    for time_s, value in points:
        if steps:
            steps.append((time_s, steps[-1][1]))
        steps.append((time_s, value))
    return steps


def legend(curves: Sequence[Curve], *, has_marks: bool = False) -> str:
    """Name the curves, each with a piece of its line."""
    items = [
        '<span class="key"><svg width="26" height="8"><line x1="0" x2="26" y1="4" y2="4" '
        f'stroke="{curve.colour}" stroke-width="2" stroke-dasharray="{curve.dash}"/></svg> '
        f'{escape(curve.name)}</span>'
        for curve in curves
    ]
    if has_marks:
        items.append(
            '<span class="key"><svg width="10" height="12"><line class="mark" x1="5" x2="5" y1="0" '
            'y2="12"/></svg> key step (reason under the pointer)</span>'
        )
    return f'<div class="legend">{"".join(items)}</div>'


def stacked_bars(bars: Mapping[str, Mapping[str, float]], *, unit: str) -> str:
    """Draw one horizontal bar per row, made of named parts.

    Args:
        bars: Values by part by row.
        unit: Unit of the values.
    """
    names = sorted({name for parts in bars.values() for name in parts})
    total = max((sum(parts.values()) for parts in bars.values()), default=0.0)
    if total <= 0:
        return '<p class="none">Nothing was measured.</p>'
    drawn = []
    for row, (name, parts) in enumerate(bars.items()):
        top = 6 + 26 * row
        drawn.append(f'<text x="{LEFT + 24}" y="{top + 13}" class="row">{escape(name)}</text>')
        left = LEFT + 30.0
        for part in names:
            value = parts.get(part, 0.0)
            width = (WIDTH - LEFT - 110) * value / total
            colour = COLOURS[names.index(part) % len(COLOURS)]
            drawn.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="18" fill="{colour}">'
                f'<title>{escape(part)}: {value:.2f} {unit}</title></rect>'
            )
            left += width
        value = sum(parts.values())
        drawn.append(f'<text x="{left + 6:.1f}" y="{top + 13}">{value:.1f} {unit}</text>')
    keys = [
        Curve(name, (), COLOURS[index % len(COLOURS)], width=6) for index, name in enumerate(names)
    ]
    return _svg(drawn, 12 + 26 * len(bars)) + legend(keys)


def state_band(changes: Sequence[tuple[float, str, str]], *, duration_s: float, name: str) -> str:
    """Draw which state held when.

    Args:
        changes: Begin in seconds, state and reason, in order.
        duration_s: End of the last state, seconds.
        name: Name of the band.
    """
    span_s = max(duration_s, 1e-9)
    scale = (WIDTH - LEFT - RIGHT) / span_s
    parts = [f'<text x="{LEFT - 6}" y="16" class="row">{escape(name)}</text>']
    ends = [change[0] for change in changes[1:]] + [duration_s]
    for (begin_s, state, reason), end_s in zip(changes, ends, strict=True):
        text = f'{begin_s:.2f} s: {state}' + (f', {reason}' if reason else '')
        parts.append(
            f'<rect x="{LEFT + begin_s * scale:.1f}" y="4" '
            f'width="{max(end_s - begin_s, 0) * scale:.1f}" height="16" '
            f'fill="{STATE_COLOURS.get(state, "#444444")}"><title>{escape(text)}</title></rect>'
        )
    return _svg(parts, 24)


def state_legend(names: Sequence[str]) -> str:
    """Name the colours of states."""
    return legend([Curve(n, (), STATE_COLOURS.get(n, '#444444'), width=6) for n in names])


def _svg(parts: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" class="plot">{"".join(parts)}</svg>'


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-6)
    return (0.0 if 0 <= low < margin * 4 else low - margin), high + margin


def _axes(low: float, high: float, span_s: float, height: int, label: str) -> str:
    bottom = height - BOTTOM
    size = f'width="{WIDTH - LEFT - RIGHT}" height="{bottom - TOP}"'
    parts = [f'<rect x="{LEFT}" y="{TOP}" {size} class="frame"/>']
    for value in _ticks(low, high, 4):
        y = TOP + (bottom - TOP) * (1 - (value - low) / (high - low))
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="row" x="{LEFT - 5}" y="{y + 4:.1f}">{value:.4g}</text>'
        )
    for value in _ticks(0.0, span_s, 8):
        x = LEFT + (WIDTH - LEFT - RIGHT) * value / span_s
        parts.append(f'<text class="column" x="{x:.1f}" y="{bottom + 14}">{value:.4g}</text>')
    parts.append(f'<text x="{LEFT}" y="{height - 3}">{escape(label)}</text>')
    parts.append(f'<text class="row" x="{WIDTH - RIGHT}" y="{height - 3}">seconds</text>')
    return ''.join(parts)


def _ticks(low: float, high: float, about: int) -> list[float]:
    step = 10 ** math.floor(math.log10((high - low) / about))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= about:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
