"""Files that are whole or absent."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file takes its own name when the block ends without an error."""
    partial = path.with_name(path.name + '.partial')
    yield partial
    os.replace(partial, path)  # noqa: PTH105
