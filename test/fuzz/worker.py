"""Runs cases of one target, one after another, and notes each before it begins."""

from __future__ import annotations

import json
import mmap
import os
import resource
import struct
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

BEAT = struct.Struct('<qdqq')
"""Number of the case, -1 while preparing; when it began, seconds; accepted and refused before."""

MEMORY_BYTES = 2**30
"""What a case may take beyond what the worker took before."""

ADDRESS_SPACE_BYTES = 16 * 2**30


def run_case(case: Callable[[Random], None], name: str, seed: int, index: int) -> str:
    """Run one case; the same name, seed and index make the same case.

    Returns:
        ``accepted``, ``refused`` with a sentence, or what else happened.
    """
    from safe_vla_ros.errors import SafeVlaError

    random = Random(f'{name} {seed} {index}')
    try:
        case(random)
    except SafeVlaError as error:
        return 'refused' if str(error).encode() else 'a SafeVlaError without a sentence'
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if 'safe_vla_ros/' in frame.filename]
        place = f'{Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours else 'the fuzzer'
        text = str(error).encode('utf-8', 'backslashreplace').decode()
        return f'{type(error).__name__} in {place}: {text[:300]}'
    return 'accepted'


def peak_bytes() -> int:
    """Return the largest memory that this process has had."""
    for line in Path('/proc/self/status').read_text(encoding='ascii').splitlines():
        if line.startswith('VmHWM:'):
            return int(line.split()[1]) * 1024
    return 0


def work(options: dict[str, Any]) -> None:
    """Run cases until the time is over or something has happened that a process cannot undo.

    Args:
        options: ``target``, ``seed``, ``first`` case, ``cases`` at most, ``seconds``, ``folder``,
            and the files ``beat`` and ``notes``.
    """
    from targets import FAULTS, TARGETS

    folder = Path(options['folder'])
    name = options['target']
    target = TARGETS.get(name, FAULTS)
    with Path(options['beat']).open('r+b') as file:
        beat = mmap.mmap(file.fileno(), BEAT.size)
    case = target.prepare(folder)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    before, said = peak_bytes(), _size(2)
    counts = {'accepted': 0, 'refused': 0}
    most = {'longest_s': 0.0, 'peak_bytes': 0}
    end_s = time.monotonic() + options['seconds']
    index = options['first']
    while index < options['first'] + options['cases'] and time.monotonic() < end_s:
        start_s = time.monotonic()
        beat[:] = BEAT.pack(index, start_s, *counts.values())
        outcome = run_case(case, name, options['seed'], index)
        took_s = time.monotonic() - start_s
        most['longest_s'] = max(most['longest_s'], took_s)
        failures = []
        if outcome in counts:
            counts[outcome] += 1
        else:
            failures.append(outcome)
        took_bytes = peak_bytes() - before
        if took_bytes > MEMORY_BYTES:
            failures.append(f'it took {took_bytes / 2**20:.0f} MiB')
        if target.quiet and (now := _size(2)) > said:
            said = now
            failures.append('something was written to stderr')
        for failure in failures:
            _note(options, {'index': index, 'failure': failure})
        most['peak_bytes'] = max(most['peak_bytes'], took_bytes)
        index += 1
        if took_bytes > MEMORY_BYTES:
            break
    beat[:] = BEAT.pack(index, time.monotonic(), *counts.values())
    _note(options, {'most': most, 'next': index})


def _note(options: dict[str, Any], content: dict[str, Any]) -> None:
    with Path(options['notes']).open('a', encoding='utf-8') as notes:
        notes.write(json.dumps(content) + '\n')


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


if __name__ == '__main__':
    work(json.loads(sys.argv[1]))
