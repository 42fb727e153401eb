"""Prepare everything that `make demo` and `make test` need, on a machine with only Python and git.

Standard library only. Creates `.venv` (`.venv-jazzy` for `make test-jazzy`), installs this package
in it with its extras, and checks for the system libraries that headless rendering needs. Run again,
it only checks.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENVS = {'demo': '.venv', 'test': '.venv', 'jazzy': '.venv-jazzy'}
JAZZY = [
    'ros-rclpy==7.1.6',
    'ros-rmw-fastrtps-cpp==8.4.3',
    'ros-common-interfaces==5.3.6',
    'numpy<2',
    'hypothesis>=6.100,<7',
    'pytest>=8.2,<10',
    'pytest-timeout>=2.3,<3',
]
"""ROS 2 Jazzy as wheels, and what its tests need; kept apart from this package's own extras."""
OLDEST, NEWEST = (3, 10), (3, 13)
SYSTEM_LIBRARIES = {
    'libEGL.so.1': 'libegl1',
    'libOpenGL.so.0': 'libopengl0',
    'libGL.so.1': 'libgl1',
    'libglib-2.0.so.0': 'libglib2.0-0',
    'libgthread-2.0.so.0': 'libglib2.0-0',
}
"""What MuJoCo renders with, and what OpenCV needs, by Debian package."""
GL_DRIVERS = ('libEGL_mesa.so.0', 'libEGL_nvidia.so.0')
GL_DRIVER_PACKAGES = ('libegl-mesa0', 'libgl1-mesa-dri')
VENV_GB = 3.8
"""What a venv takes on the disk, gigabytes."""

WHILE_INSTALLING_GB = 1.0
OTHER_OPENCV = 'opencv-python-headless'
"""It fills the same folder as opencv-python, which LIBERO needs."""


def say(text: str) -> None:
    """Print one sentence of progress at once."""
    print(text, flush=True)


def fail(text: str) -> None:
    """End with a sentence that says what to do."""
    say(f'\nerror: {text}')
    sys.exit(1)


def check_python() -> None:
    """Refuse a Python that the dependencies have no wheels for."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        fail(
            f'this is Python {version[0]}.{version[1]} ({sys.executable}); 3.10 to 3.13 are '
            'supported. Name another one: make demo PYTHON=python3.12'
        )


def install_with_apt(packages: list[str], why: str) -> None:
    """Install Debian packages when root, otherwise say how to."""
    names = ' '.join(packages)
    command = f'apt-get update && apt-get install -y --no-install-recommends {names}'
    if shutil.which('apt-get') is None:
        fail(f'{why}. Install what your system calls {names} and try again.')
    if os.geteuid() != 0:
        fail(f'{why}. Run:  sudo sh -c "{command}"')
    say(f'{why}; installing {names} with apt-get ...')
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    for arguments in (
        ['update', '-qq'],
        ['install', '-y', '-qq', '--no-install-recommends', *packages],
    ):
        done = subprocess.run(
            ['apt-get', *arguments], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            fail(f'apt-get {arguments[0]} failed:\n{done.stderr.strip() or done.stdout.strip()}')


def missing_packages() -> list[str]:
    """Name the Debian packages of the system libraries that cannot be loaded."""

    def loads(library: str) -> bool:
        try:
            ctypes.CDLL(library)
        except OSError:
            return False
        return True

    wanted = SYSTEM_LIBRARIES.items()
    missing = list(dict.fromkeys(package for library, package in wanted if not loads(library)))
    if not any(loads(driver) for driver in GL_DRIVERS):
        missing += GL_DRIVER_PACKAGES
    return missing


def check_system() -> None:
    """See to it that MuJoCo can render without a display, and that OpenCV can be loaded."""
    why = 'rendering and OpenCV need libraries that this system lacks'
    missing = missing_packages()
    if missing:
        install_with_apt(missing, why)
        missing = missing_packages()
    if missing:
        fail(f'{why}: {", ".join(missing)} cannot be loaded although apt-get succeeded')


def create_venv(venv: Path) -> None:
    """Create it, with the system's packages where those are a ROS 2 installation's."""
    if (venv / 'bin' / 'python').exists():
        return
    if importlib.util.find_spec('ensurepip') is None:
        version = f'{sys.version_info.major}.{sys.version_info.minor}'
        install_with_apt([f'python{version}-venv'], 'this Python cannot make virtual environments')
    say(f'Creating {venv.name} with Python {sys.version.split()[0]} ...')
    flags = ['--system-site-packages'] if has_ros() else []
    done = subprocess.run(
        [sys.executable, '-m', 'venv', *flags, str(venv)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        shutil.rmtree(venv, ignore_errors=True)
        fail(f'cannot create {venv}:\n{done.stdout.strip()}\n{done.stderr.strip()}')


def has_ros() -> bool:
    """Tell whether a ROS 2 installation is sourced: then rclpy comes from it, never from PyPI."""
    return (
        bool(os.environ.get('AMENT_PREFIX_PATH')) and importlib.util.find_spec('rclpy') is not None
    )


def check_disk(venv: Path) -> None:
    """Refuse to begin what the disk has no room for."""
    if (venv / '.prepared').exists():
        return
    wanted = VENV_GB + WHILE_INSTALLING_GB
    free = shutil.disk_usage(venv.parent).free / 1e9
    if free < wanted:
        fail(
            f'the disk of {venv.parent} has {free:.1f} GB left, and installing needs '
            f'{wanted:g} GB. Make room and try again.'
        )


def remove_other_opencv(venv: Path) -> None:
    """Take out the OpenCV that an earlier version installed; both fill the folder cv2."""
    pip = [str(venv / 'bin' / 'python'), '-m', 'pip', '--disable-pip-version-check']
    shown = subprocess.run([*pip, 'show', '-qq', OTHER_OPENCV], capture_output=True, check=False)
    if shown.returncode != 0:
        return
    say(f'Removing {OTHER_OPENCV} from {venv.name}: opencv-python takes its place.')
    both = [OTHER_OPENCV, 'opencv-python']
    done = subprocess.run(
        [*pip, 'uninstall', '-y', '-qq', *both], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        fail(f'pip could not remove {OTHER_OPENCV}:\n{done.stderr.strip()}')


def pip_install(venv: Path, extras: str, others: Sequence[str] = ()) -> None:
    """Install this package, editable, and others, unless nothing changed since the last time."""
    wanted = hashlib.sha256(
        (ROOT / 'setup.py').read_bytes() + ','.join([extras, *others]).encode()
    ).hexdigest()
    stamp = venv / '.prepared'
    if stamp.exists() and wanted in stamp.read_text(encoding='utf-8').split():
        return
    check_disk(venv)
    say(
        f'Installing Python packages ({extras}) into {venv.name}: torch, transformers, MuJoCo, the '
        'LIBERO benchmark with its scenes and others. The first time this takes some minutes and '
        f'about {VENV_GB:g} GB of the disk. Afterwards everything works offline ...'
    )
    remove_other_opencv(venv)
    started = time.monotonic()
    command = [
        str(venv / 'bin' / 'python'), '-m', 'pip', 'install', '-qq', '--disable-pip-version-check',
        '--editable', f'{ROOT}[{extras}]', *others,
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        try:
            code = process.wait(timeout=30)
            break
        except subprocess.TimeoutExpired:
            say(f'  ... still installing after {time.monotonic() - started:.0f} s')
        except KeyboardInterrupt:
            process.wait(timeout=30)
            sys.exit(130)
    if code != 0:
        fail('pip could not install the packages; its message is above')
    with stamp.open('a', encoding='utf-8') as file:
        file.write(f'{wanted}\n')
    say(f'Installed in {time.monotonic() - started:.0f} s.')


def main() -> None:
    """Prepare for what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('extra', choices=tuple(VENVS), help='what to prepare for')
    extra = parser.parse_args().extra
    check_python()
    check_system()
    venv = ROOT / VENVS[extra]
    create_venv(venv)
    if extra == 'jazzy':
        pip_install(venv, 'demo', JAZZY)
    else:
        pip_install(venv, extra if has_ros() else f'{extra},ros')


if __name__ == '__main__':
    main()
