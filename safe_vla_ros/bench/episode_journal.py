"""Episodes of a study on disk, one line of JSON each, so that a run can go on where it ended."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import zlib
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safe_vla_ros
from safe_vla_ros.bench.study_plan import UNPRUNED
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies import find_policy
from safe_vla_ros.runtime.parameters import PARAMETERS
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary
from safe_vla_ros.whole_files import written_whole

if TYPE_CHECKING:
    from types import TracebackType

_CODE = ('types.py', 'layer_plan.py', 'policies', 'pruning', 'runtime', 'sim')
"""What the outcome of an episode depends on, below the package."""

_NOT_WEIGHTS = {'README.md', 'policy.yaml'}
"""Files of a policy that it does not depend on, or only through the settings."""

_OF_REFRESH = frozenset(
    f'pruning.{name}'
    for name in (
        'max_staleness',
        'saliency_layers',
        'age_weight',
        'refresh_score',
        'change_per_camera',
        'forecast_moved',
    )
)
"""Settings that no other method reads."""


class EpisodeJournal:
    """Appends episodes to a file and knows those that it holds.

    An episode is found by everything that its outcome depends on but the code: policy, MuJoCo's
    release, settings, scene, seeds, sentence and disturbance. So the same episode in two stages
    runs once. An archive is a compressed copy to pass on; its episodes count as run.

    Attributes:
        path: The file.
        repaired: Whether its last line was only half there and was taken off.
    """

    def __init__(self, path: Path, *, read_only: bool = False, archive: Path | None = None) -> None:
        """Open or begin a file; others cannot write to it meanwhile.

        Args:
            path: The file.
            read_only: Only look into it, also while another run writes to it.
            archive: Of ``write_archive``; need not exist yet.

        Raises:
            SafeVlaError: Another process writes to it, or one of them holds something else.
        """
        self.path = path
        self.repaired = False
        self._lines: dict[str, dict[str, Any]] = {}
        if archive is not None and archive.exists():
            self._read(_unpacked(archive), archive)
        if read_only:
            self._file = None
            self._read(path.read_bytes() if path.exists() else b'', path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open('ab')
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            whole = self._read(path.read_bytes(), path)
        except BlockingIOError:
            self._file.close()
            msg = f'another run writes to {path}; end it first, or use another --out'
            raise SafeVlaError(msg) from None
        except SafeVlaError:
            self._file.close()
            raise
        if self.repaired:
            self._file.truncate(whole)

    def __enter__(self) -> EpisodeJournal:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        """Return the number of episodes that it holds."""
        return len(self._lines)

    def find(self, key: str) -> EpisodeSummary | None:
        """Return the episode of a key of ``episode_key``; None when it has not run."""
        line = self._lines.get(key)
        if line is None:
            return None
        known = {one.name for one in fields(EpisodeSummary)}
        return EpisodeSummary(**{name: value for name, value in line.items() if name in known})

    def code_of(self, key: str) -> str:
        """Return the digest of the code that an episode ran with."""
        return str(self._lines[key]['code'])

    def add(self, key: str, episode: EpisodeSummary, *, code: str) -> None:
        """Append an episode; it is on the disk when this returns."""
        assert self._file is not None, 'opened to be read only'
        line = {'key': key, 'code': code, **asdict(replace(episode, similarities=[]))}
        del line['shadows']
        self._lines[key] = line
        self._file.write(json.dumps(line).encode() + b'\n')
        self._file.flush()
        os.fsync(self._file.fileno())

    def write_archive(self, archive: Path) -> None:
        """Write all episodes that it holds into one compressed file, the same bytes every time.

        Raises:
            OSError: It cannot be written; what was there stays.
        """
        lines = b''.join(json.dumps(line).encode() + b'\n' for line in self._lines.values())
        archive.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(archive) as partial:
            partial.write_bytes(gzip.compress(lines, mtime=0))

    def _read(self, content: bytes, path: Path) -> int:
        whole = content.rfind(b'\n') + 1
        self.repaired = whole != len(content)
        number = 0
        try:
            for text in content[:whole].splitlines():
                number += 1
                line = json.loads(text)
                self._lines[line['key']] = line
        except (ValueError, KeyError, TypeError):
            msg = f'{path}: line {number} is not an episode; use another --out'
            raise SafeVlaError(msg) from None
        return whole


def _unpacked(archive: Path) -> bytes:
    try:
        return gzip.decompress(archive.read_bytes())
    except (OSError, EOFError, zlib.error):
        msg = f'{archive} is not a whole archive of episodes; delete it or name another one'
        raise SafeVlaError(msg) from None


def episode_key(job: EpisodeJob, policy_digest: str) -> str:
    """Name an episode by what its outcome depends on.

    Args:
        job: The episode.
        policy_digest: Of ``digest_policy``; stands for the policy's name.
    """
    pruning = job.settings.pruning
    settings = {
        name: value
        for name, value in job.settings.values.items()
        if name in PARAMETERS
        and name != 'policy'
        and value != PARAMETERS[name].default
        and _counts(name, pruning.method)
    }
    facts = {
        'policy': policy_digest,
        'mujoco': version('mujoco').rsplit('.', 1)[0],
        'settings': settings,
        'full_pass_share': pruning.full_pass_share,
        'pruning_seed': pruning.seed,
        'task': job.task,
        'seed': job.seed,
        'init_state': job.init_state,
        'latency_seed': job.latency_seed,
        'told': job.told,
        'disturbance': job.disturbance,
        'compare': job.compare,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]


def _counts(name: str, method: str) -> bool:
    """Tell whether the outcome can depend on a parameter with this method."""
    if method == UNPRUNED:
        return not name.startswith('pruning.') or name == 'pruning.method'
    return method == 'refresh' or name not in _OF_REFRESH


def digest_policy(reference: str) -> str:
    """Return a digest of a policy's network: weights, sizes and words.

    Raises:
        CheckpointError: There is no such policy.
    """
    folder = find_policy(reference)
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return _digest([folder / name for name in names if name not in _NOT_WEIGHTS], folder)


def digest_code() -> str:
    """Return a digest of the source text that decides how an episode goes."""
    root = Path(safe_vla_ros.__file__).parent
    paths = [root / name for name in _CODE]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob('*.py'))]
    return _digest(sorted(files), root)


def _digest(files: list[Path], root: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(root)).encode() + b'\0')
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
