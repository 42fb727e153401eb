"""Every failure that the runner must notice."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from worker import MEMORY_BYTES

from safe_vla_ros.errors import ObservationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random


def faults(_folder: Path) -> Callable[[Random], None]:
    """Cases that fail in every way, are refused, or are accepted."""

    kept = []

    def case(random: Random) -> None:
        kind = random.randrange(7)
        if kind == 0:
            time.sleep(3600)
        elif kind == 1:
            os.abort()
        elif kind == 2:
            raise KeyError(kind)
        elif kind == 3:
            kept.append(b'x' * (MEMORY_BYTES + 2**24))
        elif kind == 4:
            sys.stderr.write('a word\n')
            sys.stderr.flush()
        elif kind == 5:
            msg = 'refused'
            raise ObservationError(msg)

    return case
