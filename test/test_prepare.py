"""The program that prepares a bare machine for `make demo` and `make test`."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest


@pytest.fixture
def prepare():
    path = Path(__file__).resolve().parents[1] / 'tools' / 'prepare.py'
    spec = importlib.util.spec_from_file_location('prepare', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loading_fails_for(prepare, monkeypatch, missing):
    def load(name):
        if name in missing:
            raise OSError(name)

    monkeypatch.setattr(prepare.ctypes, 'CDLL', load)


def test_a_python_without_wheels_is_refused_with_what_to_do(prepare, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'version_info', (3, 9, 1))
    with pytest.raises(SystemExit) as ended:
        prepare.check_python()
    assert ended.value.code == 1
    text = capsys.readouterr().out
    assert 'this is Python 3.9' in text
    assert 'make demo PYTHON=python3.12' in text


def test_missing_rendering_libraries_are_named_by_package(prepare, monkeypatch):
    loading_fails_for(prepare, monkeypatch, {'libEGL.so.1', *prepare.GL_DRIVERS})
    assert prepare.missing_packages() == ['libegl1', 'libegl-mesa0', 'libgl1-mesa-dri']
    loading_fails_for(prepare, monkeypatch, {'libEGL_mesa.so.0'})
    assert prepare.missing_packages() == []


def test_a_user_is_told_what_to_install(prepare, monkeypatch, capsys):
    loading_fails_for(prepare, monkeypatch, {'libGL.so.1'})
    monkeypatch.setattr(prepare.os, 'geteuid', lambda: 1000)
    monkeypatch.setattr(prepare.shutil, 'which', lambda _: '/usr/bin/apt-get')
    with pytest.raises(SystemExit):
        prepare.check_system()
    expected = (
        'Run:  sudo sh -c "apt-get update && apt-get install -y --no-install-recommends libgl1"'
    )
    assert expected in capsys.readouterr().out


def test_another_system_is_told_the_names(prepare, monkeypatch, capsys):
    loading_fails_for(prepare, monkeypatch, {'libGL.so.1'})
    monkeypatch.setattr(prepare.shutil, 'which', lambda _: None)
    with pytest.raises(SystemExit):
        prepare.check_system()
    assert 'Install what your system calls libgl1' in capsys.readouterr().out


def test_rclpy_comes_from_a_sourced_installation_where_there_is_one(prepare, monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    assert not prepare.has_ros()
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/jazzy')
    assert prepare.has_ros()


def test_opencv_s_libraries_are_checked_once_each(prepare, monkeypatch):
    loading_fails_for(prepare, monkeypatch, {'libglib-2.0.so.0', 'libgthread-2.0.so.0'})
    assert prepare.missing_packages() == ['libglib2.0-0']


def test_a_full_disk_is_told_before_anything_is_installed(prepare, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        prepare.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(9e9, 8e9, 1e9)
    )
    monkeypatch.setattr(prepare.subprocess, 'Popen', lambda *_, **__: pytest.fail('installed'))
    with pytest.raises(SystemExit):
        prepare.pip_install(tmp_path / '.venv', 'demo')
    assert 'has 1.0 GB left, and installing needs 4.8 GB' in capsys.readouterr().out


@pytest.mark.parametrize('has_it', [True, False])
def test_another_opencv_in_the_same_folder_is_removed_first(prepare, monkeypatch, has_it, tmp_path):
    calls = []

    def run(command, **_):
        calls.append(command)
        return prepare.subprocess.CompletedProcess(command, 0 if has_it else 1, '', '')

    monkeypatch.setattr(prepare.subprocess, 'run', run)
    prepare.remove_other_opencv(tmp_path)
    removed = [call for call in calls if 'uninstall' in call]
    assert [call[-2:] for call in removed] == (
        [['opencv-python-headless', 'opencv-python']] if has_it else []
    )
