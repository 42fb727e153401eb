"""What tests of several parts use."""

from __future__ import annotations

import resource
import subprocess
from contextlib import contextmanager

import pytest

TIMED = ('ros', 'faults', 'launch', 'demo', 'fuzz')
"""Folders of tests that wait for DDS, clocks or other processes, and need the machine alone."""


def pytest_addoption(parser):
    parser.addoption(
        '--timed',
        choices=['only', 'none'],
        help=f'take only, or none of, the tests that need the machine alone: {", ".join(TIMED)}',
    )


def pytest_collection_modifyitems(config, items):
    choice = config.getoption('--timed')
    if choice is None:
        return
    root = config.rootpath / 'test'
    sorted_out = {True: [], False: []}
    for item in items:
        timed = item.path.relative_to(root).parts[0] in TIMED
        sorted_out[timed == (choice == 'only')].append(item)
    items[:] = sorted_out[True]
    config.hook.pytest_deselected(items=sorted_out[False])


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
