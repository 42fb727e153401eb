import sqlite3
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from safe_vla_ros.replay.bags import Bag
from safe_vla_ros.replay.errors import BagError

WANTED = {
    '/instruction': 'std_msgs/msg/String',
    '/corner/image_raw': 'sensor_msgs/msg/Image',
    '/ee_pose': 'geometry_msgs/msg/PoseStamped',
}
STORAGES = [
    (StoragePlugin.MCAP, CompressionMode.NONE),
    (StoragePlugin.MCAP, CompressionMode.STORAGE),
    (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    (StoragePlugin.MCAP, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.NONE),
    (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    (StoragePlugin.SQLITE3, CompressionMode.FILE),
]


def read(path):
    with Bag(path) as bag:
        return list(bag.messages(WANTED))


@pytest.mark.parametrize(('storage', 'compression'), STORAGES)
def test_every_storage_gives_the_same_messages(build, robot, storage, compression):
    plain = read(robot(build('plain')).write())
    other = read(robot(build('other', storage=storage, compression=compression)).write())
    assert len(plain) == 81
    assert other == plain
    assert [m.time_s for m in plain] == sorted(m.time_s for m in plain)


def test_a_storage_file_alone_is_read(build, robot):
    path = robot(build()).write()
    assert read(storage_file(path)) == read(path)


@pytest.mark.parametrize('storage', [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_split_bag_is_one_bag(tmp_path, build, robot, split, storage):
    whole = robot(build('whole', storage=storage))
    parts = []
    for number, keep in ((0, slice(0, 90)), (1, slice(90, None))):
        part = build(f'part_{number}', storage=storage)
        part.messages = sorted(whole.messages)[keep]
        parts.append(part.write())
    path = split(tmp_path / 'split', parts)
    assert read(path) == read(whole.write())


def storage_file(path):
    return next(file for file in sorted(path.iterdir()) if file.suffix != '.yaml')


def half(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


NOT_BAGS = {
    'missing': ('bag', lambda path: None),
    'empty directory': ('bag', Path.mkdir),
    'ROS 1': ('bag.bag', lambda path: path.write_text('#ROSBAG V2.0')),
    'text': ('bag.txt', lambda path: path.write_text('hello')),
    'empty mcap': ('bag.mcap', Path.touch),
    'foreign mcap': ('bag.mcap', lambda path: path.write_bytes(bytes(range(256)) * 40)),
    'foreign db3': ('bag.db3', lambda path: path.write_bytes(bytes(range(256)) * 40)),
}
DAMAGE = {
    'no metadata': lambda path: (path / 'metadata.yaml').unlink(),
    'metadata of another program': lambda path: (path / 'metadata.yaml').write_text('a: [1, 2'),
    'metadata without its key': lambda path: (path / 'metadata.yaml').write_text('{}'),
    'storage file missing': lambda path: storage_file(path).unlink(),
    'truncated mcap': lambda path: half(storage_file(path)),
    'truncated sqlite': lambda path: half(storage_file(path)),
}


def broken(tmp_path, build, robot, kind):
    """Return a bag that is broken in the named way."""
    if kind in NOT_BAGS:
        name, make = NOT_BAGS[kind]
        make(tmp_path / name)
        return tmp_path / name
    storage = StoragePlugin.SQLITE3 if 'sqlite' in kind else StoragePlugin.MCAP
    builder = build(storage=storage)
    if kind == 'no messages':
        return builder.write()
    path = robot(builder).write()
    DAMAGE[kind](path)
    return path


@pytest.mark.parametrize(
    ('kind', 'says'),
    [
        ('missing', 'does not exist'),
        ('empty directory', 'no metadata.yaml'),
        ('no messages', 'holds no messages'),
        ('ROS 1', 'is a ROS 1 bag'),
        ('text', 'is not a rosbag2'),
        ('empty mcap', 'empty'),
        ('foreign mcap', 'magic'),
        ('foreign db3', 'Cannot open database'),
        ('no metadata', 'recording was not finished'),
        ('metadata of another program', 'Could not load YAML'),
        ('metadata without its key', 'metadata key is missing'),
        ('storage file missing', 'missing'),
        ('truncated mcap', 'File end magic'),
        ('truncated sqlite', ''),
    ],
)
def test_broken_bags_are_refused_by_name(tmp_path, build, robot, kind, says):
    path = broken(tmp_path, build, robot, kind)
    with pytest.raises(BagError, match=str(path)) as caught:
        read(path)
    assert says in str(caught.value)


@pytest.mark.parametrize('compression', [CompressionMode.STORAGE, CompressionMode.MESSAGE])
def test_damage_in_the_middle_gives_what_came_before_it(build, robot, compression):
    path = robot(build(compression=compression), duration_s=20.0, size=(60, 80)).write()
    file = storage_file(path)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    file.write_bytes(data)
    got = []
    with Bag(path) as bag, pytest.raises(BagError, match='damaged'):
        got.extend(bag.messages(WANTED))
    with Bag(path) as bag:
        messages = bag.messages(WANTED)
        for _ in range(20):
            assert next(messages).raw


def test_only_the_type_that_is_asked_for_is_read(build, robot, messages):
    builder = robot(build())
    builder.add('/ee_pose', messages.text('not a pose'), 0.5)
    read_topics = read(builder.write())
    assert {m.msgtype for m in read_topics if m.topic == '/ee_pose'} == {
        'geometry_msgs/msg/PoseStamped'
    }


def test_memory_does_not_grow_with_the_bags_length(build, robot):
    peaks = []
    for duration_s in (8.0, 40.0):
        path = robot(build(f'bag_{duration_s}'), duration_s=duration_s, size=(120, 160)).write()
        tracemalloc.start()
        with Bag(path) as bag:
            for _ in bag.messages(WANTED):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert storage_file(path).stat().st_size > 5 * peaks[1]
    assert peaks[1] < 1.5 * peaks[0]


def test_a_bag_must_be_open_to_be_read():
    with pytest.raises(BagError, match='not open'):
        list(Bag(Path('nowhere')).messages(WANTED))


@pytest.mark.parametrize(
    'change',
    [
        "UPDATE topics SET name = x'ff'",
        "UPDATE topics SET type = x'07'",
        "UPDATE messages SET timestamp = 'late'",
        'UPDATE messages SET timestamp = 1e300',
        "UPDATE messages SET data = 'text'",
        'UPDATE messages SET data = 5',
    ],
)
def test_values_of_other_types_in_sqlite_are_damage(build, robot, change):
    path = robot(build(storage=StoragePlugin.SQLITE3)).write()
    file = next(path.glob('*.db3'))
    with closing(sqlite3.connect(file)) as database:
        database.execute(change)
        database.commit()
    for place in (path, file):
        with pytest.raises(BagError, match=str(place)):
            read(place)


@pytest.mark.parametrize(
    ('key', 'value'),
    [('message_count', 'many'), ('starting_time', {'nanoseconds_since_epoch': []})],
)
def test_values_of_other_types_in_the_metadata_are_refused(build, robot, key, value):
    path = robot(build()).write()
    content = yaml.safe_load((path / 'metadata.yaml').read_text())
    content['rosbag2_bagfile_information'][key] = value
    (path / 'metadata.yaml').write_text(yaml.safe_dump(content))
    with pytest.raises(BagError, match=str(path)):
        read(path)


def test_a_reader_that_fails_to_close_hides_nothing(build, robot):
    path = robot(build()).write()
    content = yaml.safe_load((path / 'metadata.yaml').read_text())
    content['rosbag2_bagfile_information']['files'] = 'x'
    (path / 'metadata.yaml').write_text(yaml.safe_dump(content))
    assert len(read(path)) == 81
