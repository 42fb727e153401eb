"""The program that prepares a bare machine for `make demo` and `make test`."""

from __future__ import annotations

import importlib.util
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
    assert prepare.missing_gl_packages() == ['libegl1', 'libegl-mesa0', 'libgl1-mesa-dri']
    loading_fails_for(prepare, monkeypatch, {'libEGL_mesa.so.0'})
    assert prepare.missing_gl_packages() == []


def test_a_user_is_told_what_to_install(prepare, monkeypatch, capsys):
    loading_fails_for(prepare, monkeypatch, {'libGL.so.1'})
    monkeypatch.setattr(prepare.os, 'geteuid', lambda: 1000)
    monkeypatch.setattr(prepare.shutil, 'which', lambda _: '/usr/bin/apt-get')
    with pytest.raises(SystemExit):
        prepare.check_gl()
    expected = (
        'Run:  sudo sh -c "apt-get update && apt-get install -y --no-install-recommends libgl1"'
    )
    assert expected in capsys.readouterr().out


def test_another_system_is_told_the_names(prepare, monkeypatch, capsys):
    loading_fails_for(prepare, monkeypatch, {'libGL.so.1'})
    monkeypatch.setattr(prepare.shutil, 'which', lambda _: None)
    with pytest.raises(SystemExit):
        prepare.check_gl()
    assert 'Install what your system calls libgl1' in capsys.readouterr().out


def test_rclpy_comes_from_a_sourced_installation_where_there_is_one(prepare, monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    assert not prepare.has_ros()
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/jazzy')
    assert prepare.has_ros()
