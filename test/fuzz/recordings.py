"""Serialised messages, and bags of both kinds."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import yaml
from mutations import SCALARS, change_bytes, change_tree
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.replay import cdr
from safe_vla_ros.replay.bags import Bag
from safe_vla_ros.replay.errors import MessageError
from safe_vla_ros.replay.topic_routes import COMPRESSED, IMAGE, TYPES
from safe_vla_ros.runtime.message_reading import (
    read_header,
    read_image,
    read_joints,
    read_pose,
    read_twist,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

RECORDING = Path(__file__).parents[1] / 'bags' / 'bowl_to_plate'
STORE = get_typestore(Stores.ROS2_JAZZY)


FIELDS = {
    IMAGE: (read_header, read_image),
    COMPRESSED: (read_header, read_image),
    TYPES['ee_pose']: (read_header, read_pose),
    TYPES['joint_states']: (read_header, read_joints),
    TYPES['recorded_twist']: (read_header, read_twist),
    TYPES['episode']: (read_header, lambda message: [s.message for s in message.status]),
    TYPES['instruction']: (lambda message: message.data,),
    TYPES['recorded_gripper']: (lambda message: message.data,),
}
"""What is read of each type."""


def read_message(msgtype: str, raw: bytes) -> None:
    """Read one message and all that is used of it."""
    message = cdr.read_message(msgtype, raw)
    for read in FIELDS[msgtype]:
        read(message)


def examples() -> dict[str, bytes]:
    """Return a message of every type that is read."""
    found = {}
    with Bag(RECORDING) as bag:
        wanted = {topic: kind for topic, kind, _ in bag.topic_types() if kind in FIELDS}
        for message in bag.messages(wanted):
            found.setdefault(message.msgtype, message.raw)
    types = STORE.types
    stamp = types['builtin_interfaces/msg/Time'](sec=1, nanosec=2)
    header = types['std_msgs/msg/Header'](stamp=stamp, frame_id='camera')
    pixels = np.zeros(8 * 8 * 3, np.uint8)
    raw = types['sensor_msgs/msg/Image'](header, 8, 8, 'rgb8', 0, 24, pixels)
    found[raw.__msgtype__] = bytes(STORE.serialize_cdr(raw, raw.__msgtype__))
    data = cv2.imencode('.jpg', np.zeros((8, 8, 3), np.uint8))[1].ravel()
    picture = types['sensor_msgs/msg/CompressedImage'](header=header, format='jpeg', data=data)
    found[picture.__msgtype__] = bytes(STORE.serialize_cdr(picture, picture.__msgtype__))
    missing = FIELDS.keys() - found.keys()
    assert not missing, missing
    return found


def messages(_folder: Path) -> Callable[[Random], None]:
    """CDR of every type, also read as another one."""
    whole = examples()

    def case(random: Random) -> None:
        msgtype = random.choice(sorted(whole))
        other = msgtype if random.randrange(5) else random.choice(sorted(whole))
        read_message(other, change_bytes(random, whole[msgtype][:4000]))

    return case


def mcap(folder: Path) -> Callable[[Random], None]:
    """MCAP bags: plain, with compressed chunks, and with compressed messages."""
    kinds = (CompressionMode.NONE, CompressionMode.STORAGE, CompressionMode.MESSAGE)
    whole = [_write(folder / f'mcap_{kind.name}', StoragePlugin.MCAP, kind) for kind in kinds]
    return lambda random: _case(random, random.choice(whole), folder / 'case')


def sqlite(folder: Path) -> Callable[[Random], None]:
    """sqlite3 bags: their bytes, and values of types that no bag has."""
    kinds = (CompressionMode.NONE, CompressionMode.MESSAGE)
    whole = [_write(folder / f'sqlite_{kind.name}', StoragePlugin.SQLITE3, kind) for kind in kinds]
    return lambda random: _case(random, random.choice(whole), folder / 'case')


def _write(path: Path, storage: StoragePlugin, compression: CompressionMode) -> Path:
    writer = Writer(path, version=9, storage_plugin=storage)
    if compression is not CompressionMode.NONE:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        for index, (msgtype, raw) in enumerate(sorted(examples().items())):
            connection = writer.add_connection(f'/topic_{index}', msgtype, typestore=STORE)
            for time_ns in range(3):
                writer.write(connection, 10**18 + time_ns, raw[:4000])
    return path


def _case(random: Random, whole: Path, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    storage = next(file for file in path.iterdir() if file.name != 'metadata.yaml')
    metadata = path / 'metadata.yaml'
    kind = random.randrange(6)
    if kind == 0:
        metadata.write_bytes(change_bytes(random, metadata.read_bytes()))
    elif kind == 1:
        tree = change_tree(random, yaml.safe_load(metadata.read_text()))
        metadata.write_text(_to_yaml(tree))
    elif kind == 2 and storage.suffix == '.db3':
        _change_row(random, storage)
    else:
        storage.write_bytes(change_bytes(random, storage.read_bytes()))
    read_bag(storage if random.randrange(3) == 0 else path)


def _to_yaml(tree: object) -> str:
    try:
        return yaml.safe_dump(tree)
    except RecursionError:
        return '[' * 3000


def _change_row(random: Random, storage: Path) -> None:
    columns = [
        *(('topics', name) for name in ('id', 'name', 'type', 'serialization_format')),
        *(('topics', name) for name in ('offered_qos_profiles', 'type_description_hash')),
        *(('messages', name) for name in ('topic_id', 'timestamp', 'data')),
        ('schema', 'schema_version'),
        ('message_definitions', 'encoding'),
    ]
    table, column = random.choice(columns)
    value = random.choice([s for s in SCALARS if not isinstance(s, (list, dict))] + [b'\xff\xfe'])
    if isinstance(value, str):
        value = value.encode('utf-8', 'replace').decode()
    with contextlib.closing(sqlite3.connect(storage)) as database:
        with contextlib.suppress(sqlite3.Error, OverflowError):
            where = random.choice(('', f' WHERE rowid = {random.randrange(1, 9)}'))
            database.execute(f'UPDATE {table} SET {column} = ?{where}', (value,))
        database.commit()


def read_bag(path: Path) -> None:
    """Read everything that replay reads of a bag."""
    with Bag(path) as bag:
        topics = {topic: kind for topic, kind, _ in bag.topic_types()}
        assert bag.start_s + bag.end_s < float('inf')
        for message in bag.messages(topics):
            if message.msgtype in FIELDS:
                with contextlib.suppress(MessageError):
                    read_message(message.msgtype, message.raw)
