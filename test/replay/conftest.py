"""Small generated recordings."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from replay_fakes import FakePolicy, make_setup
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_JAZZY)
TYPES = STORE.types
START_S = 1_700_000_000.0
cv2.setNumThreads(1)  # Waiting threads cost more than these small pictures.


def stamp(seconds):
    nanoseconds = round(seconds * 1e9)
    return TYPES['builtin_interfaces/msg/Time'](
        sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9
    )


def header(seconds, frame='base_link'):
    return TYPES['std_msgs/msg/Header'](stamp=stamp(seconds), frame_id=frame)


def image(seconds, pixels, encoding='rgb8', **changes):
    height, width = pixels.shape[:2]
    values = {
        'header': header(seconds, 'camera'),
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': 0,
        'step': pixels[0].nbytes,
        'data': np.ascontiguousarray(pixels).reshape(-1).view(np.uint8),
    }
    return TYPES['sensor_msgs/msg/Image'](**{**values, **changes})


def compressed_image(seconds, data, image_format='jpeg'):
    return TYPES['sensor_msgs/msg/CompressedImage'](
        header=header(seconds, 'camera'), format=image_format, data=np.frombuffer(data, np.uint8)
    )


def pose(seconds, position=(0.1, 0.6, 0.2), frame='base_link'):
    message = TYPES
    return message['geometry_msgs/msg/PoseStamped'](
        header=header(seconds, frame),
        pose=message['geometry_msgs/msg/Pose'](
            position=message['geometry_msgs/msg/Point'](*map(float, position)),
            orientation=message['geometry_msgs/msg/Quaternion'](0.0, 0.0, 0.0, 1.0),
        ),
    )


def joints(seconds, names=('gripper_left', 'gripper_right'), positions=(0.04, 0.04)):
    empty = np.zeros(0)
    return TYPES['sensor_msgs/msg/JointState'](
        header=header(seconds),
        name=list(names),
        position=np.array(positions, np.float64),
        velocity=empty,
        effort=empty,
    )


def twist(seconds, linear=(0.1, 0.0, 0.0), angular=(0.0, 0.0, 0.0)):
    vector = TYPES['geometry_msgs/msg/Vector3']
    return TYPES['geometry_msgs/msg/TwistStamped'](
        header=header(seconds),
        twist=TYPES['geometry_msgs/msg/Twist'](
            linear=vector(*map(float, linear)), angular=vector(*map(float, angular))
        ),
    )


def text(content):
    return TYPES['std_msgs/msg/String'](data=content)


def number(value):
    return TYPES['std_msgs/msg/Float64'](data=float(value))


@dataclass
class BagBuilder:
    """Collects messages and writes them as a recording."""

    path: Path
    storage: StoragePlugin = StoragePlugin.MCAP
    compression: CompressionMode = CompressionMode.NONE
    messages: list = field(default_factory=list)

    def add(self, topic, message, seconds, raw=None):
        """Add a message received at ``START_S + seconds``; ``raw`` replaces its bytes."""
        data = STORE.serialize_cdr(message, message.__msgtype__) if raw is None else raw
        time_ns = round((START_S + seconds) * 1e9)
        self.messages.append((time_ns, topic, message.__msgtype__, bytes(data)))

    def write(self):
        writer = Writer(self.path, version=9, storage_plugin=self.storage)
        if self.compression != CompressionMode.NONE:
            writer.set_compression(self.compression, CompressionFormat.ZSTD)
        with writer:
            connections = {}
            for time_ns, topic, msgtype, data in sorted(self.messages, key=lambda item: item[0]):
                key = (topic, msgtype)
                if key not in connections:
                    connections[key] = writer.add_connection(topic, msgtype, typestore=STORE)
                writer.write(connections[key], time_ns, data)
        return self.path


def pixels(index, size=(24, 32)):
    """A picture with a bright square that moves, uint8 [H, W, 3]."""
    rng = np.random.default_rng(index // 10)
    picture = rng.integers(0, 120, (*size, 3), np.uint8)
    column = index % (size[1] - 6)
    picture[4:10, column : column + 6] = 250
    return picture


def fill_with_robot(
    builder, duration_s=2.0, *, image_hz=20.0, state_hz=20.0, instruction='push', size=(24, 32)
):
    """Add what a robot with cameras ``corner`` and ``gripper`` would have recorded."""
    if instruction is not None:
        builder.add('/instruction', text(instruction), 0.0)
    for index in range(round(duration_s * image_hz)):
        seconds = 0.01 + index / image_hz
        for camera, shape in (('corner', size), ('gripper', (16, 16))):
            message = image(START_S + seconds, pixels(index, shape))
            builder.add(f'/{camera}/image_raw', message, seconds + 0.002)
    for index in range(round(duration_s * state_hz)):
        seconds = 0.005 + index / state_hz
        builder.add('/ee_pose', pose(START_S + seconds), seconds)
        builder.add('/joint_states', joints(START_S + seconds), seconds)
    return builder


@pytest.fixture
def build(tmp_path):
    """Return a function that starts a bag of that name."""

    def start(name='bag', **options):
        return BagBuilder(tmp_path / name, **options)

    return start


@pytest.fixture
def robot():
    """Return ``fill_with_robot``."""
    return fill_with_robot


@pytest.fixture
def messages():
    """Return the functions that make messages, as attributes."""
    return SimpleNamespace(
        image=image,
        compressed_image=compressed_image,
        pose=pose,
        joints=joints,
        twist=twist,
        text=text,
        number=number,
        pixels=pixels,
        start_s=START_S,
    )


@pytest.fixture
def setup_for():
    """Return ``make_setup``."""
    return make_setup


@pytest.fixture
def fake_policy():
    """Return the class of the policy."""
    return FakePolicy


def split_bag(path, parts):
    """Join bags into one directory with one metadata.yaml, as a recorder that splits leaves it."""
    path.mkdir()
    topics = {}
    infos = []
    for part in parts:
        shutil.copy(next(part.glob(f'{part.name}.*')), path)
        content = yaml.safe_load((part / 'metadata.yaml').read_text())
        infos.append(content['rosbag2_bagfile_information'])
        for topic in infos[-1]['topics_with_message_count']:
            known = topics.setdefault(topic['topic_metadata']['name'], topic)
            if known is not topic:
                known['message_count'] += topic['message_count']
    whole = {
        **infos[0],
        'relative_file_paths': [name for info in infos for name in info['relative_file_paths']],
        'files': [file for info in infos for file in info['files']],
        'message_count': sum(info['message_count'] for info in infos),
        'topics_with_message_count': list(topics.values()),
    }
    (path / 'metadata.yaml').write_text(yaml.safe_dump({'rosbag2_bagfile_information': whole}))
    return path


@pytest.fixture
def split():
    """Return ``split_bag``."""
    return split_bag
