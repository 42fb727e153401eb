"""A recording that the disk does not take ends alone, with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import rclpy
from node_bench import open_context
from rosbags.highlevel import AnyReader
from std_msgs.msg import String

from safe_vla_ros.replay.bags import Bag
from safe_vla_ros.replay.errors import BagError
from safe_vla_ros.ros.bag_recorder import BagRecorder


@pytest.fixture
def node():
    context = open_context()
    node = rclpy.create_node('recording', context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def record(node, tmp_path):
    """Return a recorder, the sentences that it says, and what feeds it one serialised message."""

    def start():
        said = []
        recorder = BagRecorder(node, tmp_path / 'bag', {'/text': String}, on_trouble=said.append)
        return recorder, said, lambda: recorder._subscriptions[0].callback(SERIALISED)

    return start


SERIALISED = bytes([0, 1, 0, 0, 6, 0, 0, 0]) + b'hello\0'


def fill_the_disk(recorder):
    storage = recorder._writer.storage
    storage.bio.close()
    storage.bio = Path('/dev/full').open('wb', buffering=0)  # noqa: SIM115  (the recorder closes it)


def check_not_whole(path):
    assert not (path / 'metadata.yaml').exists()
    with pytest.raises(BagError, match='its recording was not finished'), Bag(path):
        pass


def test_a_whole_recording_is_a_bag(tmp_path, record):
    recorder, said, feed = record()
    feed()
    recorder.close()
    assert not said
    with AnyReader([tmp_path / 'bag']) as reader:
        assert [raw for _, _, raw in reader.messages()] == [SERIALISED]


def test_a_full_disk_while_recording_ends_the_recording_with_one_sentence(tmp_path, record):
    recorder, said, feed = record()
    feed()
    storage = recorder._writer.storage
    fill_the_disk(recorder)
    storage.chunk.bio.write(bytes(2**20))  # The next message makes a chunk whole.
    feed()
    feed()
    assert said == [recorder.trouble]
    assert 'bag ended after 1 messages and is not whole: [Errno 28]' in recorder.trouble
    assert storage.bio.closed
    recorder.close()
    assert len(said) == 1
    check_not_whole(tmp_path / 'bag')


def test_a_full_disk_at_the_end_leaves_a_bag_that_does_not_look_whole(tmp_path, record):
    recorder, said, feed = record()
    feed()
    fill_the_disk(recorder)
    recorder.close()
    assert said == [recorder.trouble]
    check_not_whole(tmp_path / 'bag')


def test_a_full_disk_for_the_last_file_leaves_no_part_of_it(tmp_path, record):
    recorder, said, feed = record()
    feed()
    recorder._writer.metapath = tmp_path / 'nowhere' / 'metadata.yaml'
    recorder.close()
    assert said == [recorder.trouble]
    check_not_whole(tmp_path / 'bag')


def test_a_place_that_cannot_be_written_to_is_said_at_once(node):
    said = []
    recorder = BagRecorder(node, Path('/proc/bag'), {'/text': String}, on_trouble=said.append)
    recorder.close()
    assert said == [recorder.trouble]
    assert 'ended after 0 messages' in recorder.trouble
