"""When Python looks for garbage, and what is given back to the system."""

from __future__ import annotations

import ctypes
import gc
import sys


def spare_what_exists() -> None:
    """Let collections pass over everything that exists now.

    A full collection stops every thread for as long as it walks through torch, a quarter of a
    second: longer than control ticks may wait.
    """
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Collect everything, and give free memory of the allocators back to the system.

    Stops every thread for a moment: only while nothing is commanded.
    """
    gc.unfreeze()
    gc.collect()
    torch = sys.modules.get('torch')
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    # The C library keeps what lies between blocks in use; not every one has this function.
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)
