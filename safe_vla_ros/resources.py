"""Where the files that are installed beside the code lie: models, robot YAMLs, launch files."""

from __future__ import annotations

from pathlib import Path

from safe_vla_ros.errors import SafeVlaError

_PACKAGE = 'safe_vla_ros'


def find_share(kind: str) -> Path:
    """Return the directory of installed files of one kind.

    In a source tree and an editable install it lies beside the package; after ``pip install`` and
    ``colcon build`` it is ``share/safe_vla_ros/<kind>`` under the prefix that holds the package.

    Args:
        kind: ``models``, ``config`` or ``launch``.

    Raises:
        SafeVlaError: No such directory; the message lists where it was looked for.
    """
    package = Path(__file__).resolve().parent
    candidates = [package.parent / kind] if (package.parent / 'package.xml').is_file() else []
    candidates += [prefix / 'share' / _PACKAGE / kind for prefix in package.parents]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    msg = f'no {kind} directory of {_PACKAGE}; looked for {", ".join(map(str, candidates))}'
    raise SafeVlaError(msg)
