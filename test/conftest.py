"""What tests of several parts use."""

from __future__ import annotations

import resource
import subprocess
from contextlib import contextmanager

import pytest


@pytest.fixture
def small_files():
    """Return a context in which no file grows beyond some bytes; the system refuses the rest."""

    @contextmanager
    def limit(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of 256 KiB; mounting it needs root."""
    path = tmp_path / 'disk'
    path.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip('mounting a small disk needs root')
    yield path
    subprocess.run(['umount', str(path)], check=True)
