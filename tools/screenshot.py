"""Take pictures of an HTML file, such as a replay's report, with Debian's chromium."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
FLAGS = (
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--hide-scrollbars',
)


def main() -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('page', type=Path, help='the HTML file')
    parser.add_argument('picture', type=Path, help='the PNG to write')
    parser.add_argument('--width', type=int, default=1040, help='pixels (1040)')
    parser.add_argument('--height', type=int, default=3000, help='pixels (3000)')
    parser.add_argument('--crop', type=int, nargs=2, metavar=('TOP', 'BOTTOM'), help='rows to keep')
    parser.add_argument('--timeout', type=float, default=120.0, help='seconds (120)')
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.stderr.write('no chromium found; on Debian: apt-get install chromium\n')
        return 1
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                *FLAGS,
                f'--user-data-dir={profile}',
                f'--window-size={options.width},{options.height}',
                f'--screenshot={options.picture.resolve()}',
                options.page.resolve().as_uri(),
            ],
            check=True,
            timeout=options.timeout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    if not options.picture.exists():
        return 1
    if options.crop:
        import cv2  # noqa: PLC0415  (not needed for a whole page)

        picture = cv2.imread(str(options.picture))
        cv2.imwrite(str(options.picture), picture[slice(*options.crop)])
    return 0


if __name__ == '__main__':
    sys.exit(main())
