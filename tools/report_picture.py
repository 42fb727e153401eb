"""Draw the first curves of a replay's first bag as one PNG. Needs `pip install resvg-py`."""

from __future__ import annotations

import argparse
import re
import sys
from html import escape, unescape
from pathlib import Path

FONTS = '/usr/share/fonts/truetype/dejavu'
MARGIN, WIDTH, PLOT_WIDTH = 20, 1040, 1000
KEYS_LEFT, KEY_GAP, LETTER = 78, 54, 7.2
"""Pixels; the last one is the usual width of a letter in a legend."""


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('report', type=Path, help='report.html of a replay')
    parser.add_argument('picture', type=Path, help='the PNG to write')
    parser.add_argument('--plots', type=int, default=3, help='how many (%(default)s)')
    parser.add_argument('--fonts', default=FONTS, help='folder of the DejaVu fonts (%(default)s)')
    options = parser.parse_args()
    try:
        import resvg_py  # noqa: PLC0415  (with a sentence when it is missing)
    except ImportError:
        sys.exit('error: resvg_py is missing: pip install resvg-py')
    text = options.report.read_text(encoding='utf-8')
    picture = as_svg(text, options.plots)
    options.picture.write_bytes(
        bytes(resvg_py.svg_to_bytes(svg_string=picture, font_dirs=[options.fonts]))
    )


def as_svg(report: str, count: int) -> str:
    """Put titles, curves and legends of the first bag's first plots below each other."""
    bag = report.partition('<h2 class="bag">')[2]
    sections = [s for s in re.split(r'(?=<h3>)', bag) if re.search(r'<svg[^>]*"plot"', s)]
    pieces: list[str] = []
    y = 0.0
    for section in sections[:count]:
        drawn, height = _section(section, y)
        pieces += drawn
        y += height
    style = '\n'.join(re.findall(r'^svg (.*)$', report, re.MULTILINE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{round(y) + 10}" '
        f'font-family="DejaVu Sans"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff" stroke="none"/>{"".join(pieces)}</svg>'
    )


def _section(section: str, top: float) -> tuple[list[str], float]:
    """Return one plot's pieces and its height."""
    title = _plain(re.findall(r'<h3>(.*?)</h3>', section, re.DOTALL)[0])
    (plot,) = re.findall(r'<svg[^>]*"plot".*?</svg>', section, re.DOTALL)[:1]
    *_, width, height = map(float, re.findall(r'viewBox="([^"]+)"', plot)[0].split())
    scale = PLOT_WIDTH / width
    curves = re.sub(r'<title>.*?</title>|^<svg[^>]*>|</svg>$', '', plot, flags=re.DOTALL)
    y = top + 30
    pieces = [
        f'<text x="{MARGIN}" y="{y}" font-size="16" font-weight="bold">{escape(title)}</text>',
        f'<g transform="translate({MARGIN} {y + 6}) scale({scale})" font-size="11">{curves}</g>',
    ]
    y += height * scale + 14
    x = float(KEYS_LEFT)
    for key in re.findall(r'<span class="key">(.*?)</span>', section, re.DOTALL):
        line = re.sub(r'<svg[^>]*>(.*?)</svg>.*', r'\1', key, flags=re.DOTALL)
        name = _plain(re.sub(r'<svg.*?</svg>', '', key, flags=re.DOTALL))
        pieces.append(f'<g transform="translate({x} {y - 2})">{line}</g>')
        pieces.append(f'<text x="{x + 30}" y="{y + 7}" font-size="12">{escape(name)}</text>')
        x += KEY_GAP + LETTER * len(name)
    return [piece.replace(' stroke-dasharray=""', '') for piece in pieces], y + 14 - top


def _plain(text: str) -> str:
    return unescape(re.sub(r'<.*?>', '', text)).strip()


if __name__ == '__main__':
    main()
