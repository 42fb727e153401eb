"""Every bad bag of docs/replay_faults.md and what becomes of it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from safe_vla_ros.replay.bag_replay import BagTask, replay_bag


@pytest.fixture
def replay(tmp_path, setup_for):
    def run(path, **options):
        folder = tmp_path / 'result'
        folder.mkdir()
        return replay_bag(BagTask(0, path), setup_for(**options), folder, lambda done, all_s: True)

    return run


def inferences(result):
    return result['methods']['safe']['metrics']['counts'].get('inferences', 0)


def without(builder, *topics):
    builder.messages = [message for message in builder.messages if message[1] not in topics]
    return builder


def test_a_bag_that_cannot_be_opened_fails_with_its_reason(tmp_path, replay):
    result = replay(tmp_path / 'nothing.mcap')
    assert result['status'] == 'failed'
    assert result['error'].endswith('nothing.mcap does not exist')
    assert sorted(path.name for path in (tmp_path / 'result').iterdir()) == ['result.json']


def test_a_foreign_bag_fails_with_everything_that_is_missing(build, replay, messages):
    builder = build()
    builder.add('/chatter', messages.text('hello'), 0.0)
    builder.add('/left/image', messages.image(1.0, messages.pixels(0)), 0.1)
    result = replay(builder.write())
    assert result['status'] == 'failed'
    for name in ('corner', 'gripper', 'instruction', 'ee_pose', 'joint_states', '/left/image'):
        assert name in result['error']


@pytest.mark.parametrize('topic', ['/corner/image_raw', '/ee_pose', '/joint_states'])
def test_a_missing_topic_fails_by_name(build, robot, replay, topic):
    result = replay(without(robot(build()), topic).write())
    assert result['status'] == 'failed'
    assert 'no topic for' in result['error']
    assert topic.split('/')[1] in result['error']


def test_a_topic_that_the_policy_does_not_need_may_be_missing(build, robot, replay):
    path = without(robot(build()), '/joint_states').write()
    result = replay(path, values={'proprio.layout': ['ee_position', 'zero']})
    assert result['status'] == 'complete'
    assert inferences(result) > 5


def test_an_unknown_encoding_fails_with_what_is_allowed(build, robot, replay, messages):
    builder = without(robot(build()), '/corner/image_raw')
    for index in range(10):
        image = messages.image(messages.start_s + index / 10, messages.pixels(0), 'yuv422_yuy2')
        builder.add('/corner/image_raw', image, index / 10)
    result = replay(builder.write())
    assert result['status'] == 'failed'
    assert "encoding 'yuv422_yuy2'; allowed are rgb8" in result['error']


def test_an_unknown_compressed_format_fails_with_what_is_allowed(build, robot, replay, messages):
    builder = without(robot(build()), '/corner/image_raw')
    image = messages.compressed_image(messages.start_s, b'\0\0\0\1', 'h264')
    builder.add('/corner/image_raw/compressed', image, 0.1)
    result = replay(builder.write())
    assert result['status'] == 'failed'
    assert "format 'h264'; allowed are jpeg" in result['error']


def test_a_few_broken_images_are_errors_of_their_inferences(build, robot, replay, messages):
    builder = without(robot(build(), duration_s=3.0), '/corner/image_raw')
    for index in range(60):
        seconds = 0.01 + index / 20
        changes = {'step': 7} if index in {20, 21} else {}
        image = messages.image(messages.start_s + seconds, messages.pixels(index), **changes)
        builder.add('/corner/image_raw', image, seconds + 0.002)
    result = replay(builder.write(), methods=('safe',))
    counts = result['methods']['safe']['metrics']['counts']
    assert result['status'] == 'complete'
    assert 1 <= counts['errors'] <= 2
    assert counts['accepted'] > 10


def test_images_that_stay_broken_end_in_failed_as_on_the_robot(build, robot, replay, messages):
    builder = without(robot(build(), duration_s=2.0), '/corner/image_raw')
    for index in range(40):
        seconds = 0.01 + index / 20
        image = messages.image(messages.start_s + seconds, messages.pixels(index), height=3)
        builder.add('/corner/image_raw', image, seconds + 0.002)
    result = replay(builder.write())
    assert result['methods']['safe']['metrics']['counts']['errors'] == 3
    assert result['methods']['safe']['state_changes'][-1]['name'] == 'failed'


@pytest.mark.parametrize(
    ('topic', 'msgtype'),
    [
        ('/corner/image_raw', 'sensor_msgs/msg/Image'),
        ('/corner/image_raw/compressed', 'sensor_msgs/msg/CompressedImage'),
        ('/ee_pose', 'geometry_msgs/msg/PoseStamped'),
        ('/joint_states', 'sensor_msgs/msg/JointState'),
        ('/instruction', 'std_msgs/msg/String'),
        ('/ee_twist', 'geometry_msgs/msg/TwistStamped'),
        ('/gripper', 'std_msgs/msg/Float64'),
        ('/episode', 'diagnostic_msgs/msg/DiagnosticArray'),
    ],
)
@pytest.mark.parametrize('raw', [b'\0\1\0\0abc', b'\0\1\0\0' + b'\xff' * 7, b'<xml/>'])
def test_a_message_that_cannot_be_read_is_skipped_and_counted(
    build, robot, replay, *, topic, msgtype, raw
):
    builder = robot(build())
    if topic.endswith('compressed'):
        without(builder, '/corner/image_raw')
    for seconds in (0.5, 0.6):
        builder.add(topic, SimpleNamespace(__msgtype__=msgtype), seconds, raw=raw)
    result = replay(builder.write())
    assert result['status'] == 'complete'
    assert result['skipped'] == {f'undecodable on {topic}': 2}
    sentences = [note for note in result['notes'] if note.startswith(f'{topic}: not a ')]
    assert len(sentences) == 1
    assert msgtype in sentences[0] or 'CDR message' in sentences[0]


def test_stamps_that_go_back_are_counted(build, robot, replay, messages):
    builder = robot(build())
    builder.add('/ee_pose', messages.pose(messages.start_s + 0.2), 0.6)
    result = replay(builder.write())
    assert result['skipped'] == {'header stamp goes back on /ee_pose': 1}
    assert inferences(result) > 5


def test_a_bag_whose_time_jumps_back_goes_on_after_the_jump(tmp_path, build, robot, replay, split):
    # A file that is played again: two identical parts in one split bag.
    parts = [robot(build(f'part_{i}'), duration_s=1.0).write() for i in range(2)]
    result = replay(split(tmp_path / 'split', parts))
    assert result['status'] == 'complete'
    assert result['skipped']['time jumps back'] == 1
    assert inferences(result) > 9
    reasons = result['methods']['safe']['metrics']['counts']
    assert reasons['key_steps/episode_start'] == 2


def test_two_types_on_one_topic_are_told_apart(build, robot, replay, messages):
    builder = robot(build())
    builder.add('/ee_pose', messages.text('not a pose'), 0.5)
    result = replay(builder.write())
    assert result['status'] == 'complete'
    assert any('1 messages std_msgs/msg/String were skipped' in note for note in result['notes'])


def test_stamps_of_another_clock_are_noted_and_can_be_followed(build, robot, replay, tmp_path):
    builder = robot(build())
    # Recorded an hour later, by the recorder's clock.
    builder.messages = [(t + 3600 * 10**9, *rest) for t, *rest in builder.messages]
    path = builder.write()
    result = replay(path)
    assert inferences(result) == 0
    assert any('3600.002 s behind' in note and '--clock stamps' in note for note in result['notes'])
    assert result['methods']['safe']['state_changes'][-1]['name'] == 'stale'
    (tmp_path / 'result').rename(tmp_path / 'before')
    result = replay(path, clock='stamps')
    assert inferences(result) > 5
    assert result['played_s'] == pytest.approx(2, abs=0.1)


def test_damage_in_the_middle_keeps_what_came_before(build, robot, replay):
    path = robot(build(), duration_s=8.0, size=(160, 200)).write()
    file = next(path.glob('*.mcap'))
    data = bytearray(file.read_bytes())
    # The records of a chunk in the middle lose their lengths.
    data[len(data) // 2 : len(data) // 2 + 200_000] = b'\xff' * 200_000
    file.write_bytes(data)
    result = replay(path)
    assert result['status'] in {'damaged', 'complete'}
    if result['status'] == 'damaged':
        assert 'is damaged' in result['error']
    assert inferences(result) > 5


def test_states_that_are_not_finite_halt_as_on_the_robot(build, robot, replay, messages):
    builder = robot(build(), duration_s=2.0)
    for index in range(20):
        seconds = 1.0 + index / 20
        message = messages.joints(messages.start_s + seconds, positions=(np.nan, 0.04))
        builder.add('/joint_states', message, seconds + 0.01)
    builder.messages = [
        m for m in builder.messages if not (m[1] == '/joint_states' and m[0] % 50_000_000 == 5e6)
    ]
    result = replay(builder.write())
    changes = result['methods']['safe']['state_changes']
    assert any('not finite' in change['reason'] for change in changes)


def test_the_document_names_every_kind_of_fault():
    text = (Path(__file__).parents[2] / 'docs' / 'replay_faults.md').read_text()
    for fault in (
        'does not exist',
        'no metadata.yaml',
        'holds no messages',
        'ROS 1 bag',
        'damaged',
        'encoding',
        'two types',
        'goes back',
        'jumps back',
        'undecodable',
        'another clock',
        'no topic for',
    ):
        assert fault in text, fault
