"""Attack everything that reads files and messages: `make fuzz`, options in ARGS.

Each target runs in a worker process of its own with bounded memory. A case fails when it raises
anything but the package's own errors, hangs, ends its process, takes too much memory, or lets
something write to stderr. The same seed and index make the same case:

    python test/fuzz --targets bags/mcap --seed 1 --first 4711 --cases 1
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from worker import BEAT

ROOT = Path(__file__).parents[2]
PREPARE_S = 180.0
"""Longest that a worker may take before its first case, seconds."""


def main(arguments: list[str] | None = None) -> int:
    """Run the targets; 1 when a case failed."""
    options = _parser().parse_args(arguments)
    from targets import TARGETS

    unknown = [name for name in options.targets if name not in TARGETS and name != 'faults']
    if unknown:
        _say(f'unknown targets {", ".join(unknown)}; there are {", ".join(TARGETS)}')
        return 2
    weights = {name: TARGETS[name].weight for name in TARGETS}
    chosen = options.targets or list(TARGETS)
    total = sum(weights.get(name, 1) for name in chosen)
    start_s = time.monotonic()
    results = {}
    for name in chosen:
        seconds = 60.0 * options.minutes * weights.get(name, 1) / total
        results[name] = run_target(
            name,
            seconds,
            seed=options.seed,
            first=options.first,
            cases=options.cases,
            case_s=options.case_seconds,
        )
        _say(_line(name, results[name]))
    summary = {
        'seed': options.seed,
        'minutes': round((time.monotonic() - start_s) / 60.0, 2),
        'cases': sum(result['cases'] for result in results.values()),
        'failures': sum(len(result['failures']) for result in results.values()),
        'targets': results,
    }
    _say(f'{summary["cases"]} cases, {summary["failures"]} failures')
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')
    return 1 if summary['failures'] else 0


def run_target(
    name: str, seconds: float, *, seed: int, first: int, cases: int, case_s: float
) -> dict[str, Any]:
    """Run one target for some time, in as many workers as its failures end.

    Args:
        name: The target.
        seconds: How long.
        seed: Of the cases.
        first: Number of the first case.
        cases: How many at most.
        case_s: Longest that a case may take.

    Returns:
        Counts, the longest case (s), the largest memory of a case (bytes) and the failures.
    """
    result: dict[str, Any] = {
        'cases': 0,
        'accepted': 0,
        'refused': 0,
        'seconds': 0.0,
        'longest_s': 0.0,
        'peak_mib': 0.0,
        'failures': [],
    }
    start_s, index = time.monotonic(), first
    while index < first + cases:
        left_s = seconds - result['seconds']
        if left_s <= 0.0:
            break
        with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
            todo = {'target': name, 'seed': seed, 'first': index, 'cases': first + cases - index}
            worker = _Worker(Path(folder), {**todo, 'seconds': left_s}, case_s)
            reached = worker.watch(result)
        result['cases'] += reached - index
        if reached == index:
            break
        index = reached
        result['seconds'] = round(time.monotonic() - start_s, 1)
    return result


class _Worker:
    """One process, watched from outside."""

    def __init__(self, folder: Path, options: dict[str, Any], case_s: float) -> None:
        (folder / 'work').mkdir()
        self._first, self._case_s = options['first'], case_s
        self._notes, self._beat = folder / 'notes', folder / 'beat'
        self._beat.write_bytes(BEAT.pack(-1, 0.0, 0, 0))
        self._stderr = folder / 'stderr'
        paths = {'folder': folder / 'work', 'notes': self._notes, 'beat': self._beat}
        text = json.dumps({**options, **{key: str(path) for key, path in paths.items()}})
        with self._stderr.open('wb') as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name('worker.py')), text],
                stderr=stderr,
                stdout=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, 'PYTHONPATH': _python_path(), 'OMP_NUM_THREADS': '1'},
            )

    def watch(self, result: dict[str, Any]) -> int:
        """Wait for the end, add to the result what was noted, and return the next case."""
        begun_s, hung = time.monotonic(), False
        while self._process.poll() is None:
            time.sleep(0.05)
            index, start_s, *_ = BEAT.unpack(self._beat.read_bytes())
            limit_s = PREPARE_S if index < 0 else self._case_s
            if time.monotonic() - (begun_s if index < 0 else start_s) > limit_s:
                hung = True
                self._process.kill()
                self._process.wait()
        index, _, accepted, refused = BEAT.unpack(self._beat.read_bytes())
        result['accepted'] += accepted
        result['refused'] += refused
        reached = self._read_notes(result)
        if reached is not None and not hung:
            return reached
        said = self._stderr.read_text(encoding='utf-8', errors='replace')[-500:]
        code = self._process.returncode
        name = signal.Signals(-code).name if code < 0 else f'status {code}'
        failure = (
            f'it took more than {self._case_s:g} s' if hung else f'the process ended with {name}'
        )
        result['failures'].append({'index': index, 'failure': failure, 'stderr': said})
        return max(index, self._first) + 1 if index >= 0 else self._first

    def _read_notes(self, result: dict[str, Any]) -> int | None:
        if not self._notes.exists():
            return None
        for line in self._notes.read_text(encoding='utf-8').splitlines():
            note = json.loads(line)
            if 'failure' in note:
                result['failures'].append(note)
                continue
            most = note['most']
            result['longest_s'] = round(max(result['longest_s'], most['longest_s']), 3)
            peak_mib = round(most['peak_bytes'] / 2**20, 1)
            result['peak_mib'] = max(result['peak_mib'], peak_mib)
            return int(note['next'])
        return None


def _python_path() -> str:
    places = [str(ROOT), str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')]
    return os.pathsep.join(place for place in places if place)


def _line(name: str, result: dict[str, Any]) -> str:
    return (
        f'{name:20} {result["cases"]:7d} cases, {result["accepted"]} accepted, '
        f'{result["refused"]} refused, {len(result["failures"])} failures, longest '
        f'{result["longest_s"]:.2f} s, {result["peak_mib"]:.0f} MiB'
    )


def _say(text: str) -> None:
    sys.stdout.write(text + '\n')
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser('fuzz', description=__doc__.split('\n', 1)[0])
    add = parser.add_argument
    add('--minutes', type=float, default=10.0, help='for all targets together (10)')
    add('--seed', type=int, default=0, help='of the cases (0)')
    add('--targets', nargs='+', default=[], metavar='NAME', help='all when not given')
    add('--first', type=int, default=0, help='number of the first case (0)')
    add('--cases', type=int, default=10**9, help='cases of each target at most')
    add('--case-seconds', type=float, default=10.0, help='longest that a case may take (10)')
    add('--out', type=Path, default=ROOT / 'out' / 'fuzz.json', help='result (out/fuzz.json)')
    return parser


if __name__ == '__main__':
    sys.exit(main())
