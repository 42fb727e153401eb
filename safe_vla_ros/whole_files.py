"""Files that are whole or absent."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to; the file takes its own name when the block ends without an error.

    After an error nothing is left: what lies there may have filled the disk.

    Raises:
        OSError: A directory or a device has that name; it stays.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, 'not a regular file', str(path))
    partial = path.with_name(path.name + '.partial')
    try:
        yield partial
        os.replace(partial, path)  # noqa: PTH105
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: object, *, indent: int = 1, allow_nan: bool = True) -> None:
    """Write a JSON file whole, with its directory.

    Args:
        path: The file.
        content: What it holds.
        indent: Spaces per level.
        allow_nan: Whether NaN and infinity may be in it, which strict JSON has not.

    Raises:
        ValueError: NaN or infinity is in it and not allowed.
    """
    text = json.dumps(content, indent=indent, allow_nan=allow_nan)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        partial.write_text(text + '\n', encoding='utf-8')
