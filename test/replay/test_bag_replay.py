import json
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.replay.bag_replay import BagTask, replay_bag
from safe_vla_ros.replay.replay_setup import OverlaySettings
from safe_vla_ros.runtime.image_decoding import CompressedImage, decode_image

STORE = get_typestore(Stores.ROS2_JAZZY)


def always(done_s, all_s):
    return True


@pytest.fixture
def replay(tmp_path, setup_for):
    """Return a function that replays a bag and returns the result, the rows and the folder."""
    count = iter(range(1000))

    def run(path, keep_going=always, **options):
        folder = tmp_path / f'result_{next(count)}'
        folder.mkdir()
        result = replay_bag(BagTask(0, path), setup_for(**options), folder, keep_going)
        assert json.loads((folder / 'result.json').read_text()) == json.loads(json.dumps(result))
        file = folder / 'steps.jsonl'
        rows = [json.loads(line) for line in file.open()] if file.exists() else []
        return result, rows, folder

    return run


def of_method(rows, method):
    return [row for row in rows if row['method'] == method]


def test_inferences_follow_the_playback_of_chunks(build, robot, replay):
    result, rows, _ = replay(robot(build(), duration_s=4.0).write())
    assert result['status'] == 'complete'
    safe = of_method(rows, 'safe')
    assert len(safe) >= 12
    begins = [row['time_s'] for row in safe]
    # One when everything is there, then one whenever four actions since the image are played.
    assert begins[0] < 0.05
    assert np.diff(begins)[1:] == pytest.approx(0.17, abs=0.04)
    assert all(row['accepted'] for row in safe)
    assert [row['latency_ms'] for row in safe] == pytest.approx([60.0] * len(safe), abs=1e-3)
    assert {row['instruction'] for row in safe} == {'push'}


def test_methods_are_compared_on_the_same_observations(build, robot, replay):
    result, rows, _ = replay(
        robot(build(), duration_s=3.0).write(), methods=('safe', 'none', 'fastv')
    )
    safe, none, fastv = (of_method(rows, name) for name in ('safe', 'none', 'fastv'))
    assert [r['stamp_s'] for r in safe] == [r['stamp_s'] for r in none]
    assert [r['stamp_s'] for r in safe] == [r['stamp_s'] for r in fastv]
    assert all('difference' not in row for row in none)
    assert {round(r['difference']['position_m'], 6) for r in safe} == {0.0, 0.001}
    assert {round(r['difference']['position_m'], 6) for r in fastv} == {0.002}
    metrics = result['methods']['safe']['metrics']
    assert metrics['distributions']['difference/position_m']['max'] == pytest.approx(0.001)
    assert metrics['counts']['key_steps/episode_start'] == 1
    assert metrics['counts']['key_steps/attention_shift'] >= 1
    assert metrics['counts']['state_s/running'] > 2


def test_the_unpruned_chunk_costs_no_inference_of_its_own(build, robot, replay, fake_policy):
    path = robot(build(), duration_s=2.0).write()
    policy = fake_policy()
    _, rows, _ = replay(path, policy=policy)
    assert policy.calls == len(rows)


def test_images_that_no_inference_uses_are_not_decoded(build, robot, replay, monkeypatch):
    calls = []
    monkeypatch.setattr(
        'safe_vla_ros.replay.shared_images.decode_image',
        lambda m: calls.append(m) or decode_image(m),
    )
    path = robot(build(), duration_s=4.0, image_hz=50).write()
    _, rows, _ = replay(path, methods=('safe', 'none', 'fastv'))
    assert len(calls) == 2 * len(of_method(rows, 'safe'))
    assert len(calls) < 60


def test_results_do_not_depend_on_the_machine_with_a_fixed_latency(build, robot, replay):
    path = robot(build(), duration_s=2.0).write()
    first, again = (replay(path)[1] for _ in range(2))
    assert first == again


def test_a_measured_latency_is_what_the_policy_took(build, robot, replay):
    _, rows, _ = replay(robot(build(), duration_s=1.0).write(), latency_s=None)
    assert all(0 < row['latency_ms'] < 1000 for row in rows)
    assert len({row['latency_ms'] for row in rows}) > 1


def test_a_latency_longer_than_the_chunk_starves(build, robot, replay):
    result, _, _ = replay(robot(build(), duration_s=4.0).write(), latency_s=0.45)
    counts = result['methods']['safe']['metrics']['counts']
    assert counts['starved_ticks'] > 0
    assert counts['state_s/starved'] > 0


def test_recorded_commands_are_compared_where_the_bag_has_them(build, robot, replay, messages):
    builder = robot(build(), duration_s=3.0)
    for index in range(150):
        seconds = index / 50
        message = messages.twist(messages.start_s + seconds, (0.2, 0, 0))
        builder.add('/pruned_policy/ee_twist', message, seconds)
        if index % 50 == 0:
            builder.add('/pruned_policy/gripper', messages.number(1.0), seconds)
    result, rows, _ = replay(builder.write())
    assert any('/pruned_policy/ee_twist' in note for note in result['notes'])
    distributions = result['methods']['safe']['metrics']['distributions']
    assert distributions['recorded/direction']['mean'] > 0.9
    assert 0 < distributions['recorded/linear_m_s']['mean'] < 0.2
    assert 'recorded/gripper' in distributions
    assert any('recorded_linear_m_s' in row for row in rows)


def test_the_instruction_may_be_given_where_the_bag_starts_after_it(build, robot, replay):
    path = robot(build(), instruction=None).write()
    result, rows, _ = replay(path)
    assert result['status'] == 'failed'
    assert 'instruction' in result['error']
    result, rows, _ = replay(path, values={'instruction': 'open the drawer'})
    assert result['status'] == 'complete'
    assert {row['instruction'] for row in rows} == {'open the drawer'}


def test_a_new_instruction_begins_an_episode(build, robot, replay, messages):
    builder = robot(build(), duration_s=3.0)
    builder.add('/instruction', messages.text('pull'), 1.5)
    _, rows, _ = replay(builder.write())
    safe = of_method(rows, 'safe')
    assert {row['episode'] for row in safe} == {1, 2}
    first = next(row for row in safe if row['episode'] == 2)
    assert first['instruction'] == 'pull'
    assert first['reason'] == 'instruction'


def test_an_instruction_that_is_too_long_changes_nothing_and_is_counted(
    build, robot, replay, messages
):
    builder = robot(build(), duration_s=3.0)
    builder.add('/instruction', messages.text('x' * 1001), 1.5)
    result, rows, _ = replay(builder.write())
    assert {row['instruction'] for row in rows} == {'push'}
    assert {row['episode'] for row in rows} == {1}
    assert 'refused on /instruction' in str(result)
    assert 'instruction has 1001 characters; allowed are 1000' in str(result)


def test_an_episode_event_is_a_reset(build, robot, replay):
    builder = robot(build(), duration_s=3.0)
    types = STORE.types
    for seconds, kind in ((0.0, 'started'), (1.0, 'success'), (1.5, 'started')):
        status = types['diagnostic_msgs/msg/DiagnosticStatus'](0, 'robot: episode', kind, 'x', [])
        header = types['std_msgs/msg/Header'](types['builtin_interfaces/msg/Time'](1, 0), '')
        message = types['diagnostic_msgs/msg/DiagnosticArray'](header, [status])
        builder.add('/sim_robot/episode', message, seconds)
    _, rows, _ = replay(builder.write())
    safe = of_method(rows, 'safe')
    assert [row['reason'] for row in safe if row['step'] == 0] == ['episode_start', 'service']


def test_compressed_images_are_read(build, robot, replay, messages):
    cv2 = pytest.importorskip('cv2')
    builder = robot(build(), duration_s=2.0)
    builder.messages = [m for m in builder.messages if m[1] != '/corner/image_raw']
    for index in range(40):
        seconds = 0.01 + index / 20
        _, data = cv2.imencode('.png', messages.pixels(index))
        message = messages.compressed_image(messages.start_s + seconds, bytes(data), 'png')
        builder.add('/corner/image_raw/compressed', message, seconds)
    result, rows, _ = replay(builder.write())
    assert result['status'] == 'complete'
    assert len(rows) > 10


def test_overlays_and_inferences_are_written_as_a_bag(build, robot, replay):
    path = robot(build(), duration_s=2.0).write()
    _, rows, folder = replay(path, values={'saliency.max_rate_hz': 20.0})
    read = {}
    with Reader(folder / 'overlay') as reader:
        for connection, time_ns, raw in reader.messages():
            message = STORE.deserialize_cdr(raw, connection.msgtype)
            read.setdefault(connection.topic, []).append((time_ns, message))
    safe = of_method(rows, 'safe')
    assert len(read['/pruned_policy/inference']) == len(safe)
    assert len(read['/none/pruned_policy/inference']) == len(of_method(rows, 'none'))
    inference, pruning = read['/pruned_policy/inference'][0][1].status
    assert inference.message == 'played'
    values = {item.key: item.value for item in pruning.values}
    assert values['method'] == 'safe'
    assert values['reason'] == 'episode_start'
    ratios = [message.data for _, message in read['/pruned_policy/pruning_ratio']]
    assert ratios == pytest.approx([row['pruning_ratio'] for row in safe])
    resets = [m.status[0].message for _, m in read['/pruned_policy/subtask_reset']]
    assert resets == [row['reason'] for row in safe if row['key_step']]
    assert len(read['/pruned_policy/ee_twist']) > 80
    overlays = read['/pruned_policy/saliency/gripper/image_raw/compressed']
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec * 1e-9 for _, m in overlays]
    assert stamps == pytest.approx([row['stamp_s'] for row in safe], abs=1e-6)
    assert all(m.header.frame_id == 'camera' for _, m in overlays)
    # Exactly the source images' stamps, so that both can be shown together.
    with Reader(path) as reader:
        images = [c for c in reader.connections if c.topic == '/gripper/image_raw']
        sources = [
            STORE.deserialize_cdr(raw, connection.msgtype).header
            for connection, _, raw in reader.messages(images)
        ]
    assert all(m.header in sources for _, m in overlays)
    picture = decode_image(CompressedImage(overlays[0][1].format, overlays[0][1].data))
    assert picture.shape[1] >= 224


@pytest.mark.parametrize('transport', ['raw', 'none'])
def test_overlays_may_be_raw_or_left_out(build, robot, replay, transport):
    _, _, folder = replay(
        robot(build(), duration_s=1.0).write(), overlays=OverlaySettings(transport=transport)
    )
    with Reader(folder / 'overlay') as reader:
        overlays = {t for t in reader.topics if 'saliency' in t}
        types = {reader.topics[t].msgtype for t in overlays}
    assert types == ({'sensor_msgs/msg/Image'} if transport == 'raw' else set())
    assert bool(overlays) == (folder / 'filmstrip').exists()


def test_the_filmstrip_shows_the_key_steps(build, robot, replay):
    result, rows, folder = replay(robot(build(), duration_s=2.5).write())
    frames = result['methods']['safe']['filmstrip']
    keys = [row for row in of_method(rows, 'safe') if row['key_step']]
    assert [(f['step'], f['reason']) for f in frames] == [(r['step'], r['reason']) for r in keys]
    assert {frame['file'] for frame in frames} == {
        path.name for path in (folder / 'filmstrip').iterdir()
    }
    assert result['methods']['none']['filmstrip'] == []


def test_a_stopped_replay_is_marked_and_valid(build, robot, replay):
    result, rows, folder = replay(
        robot(build(), duration_s=4.0).write(), lambda done_s, all_s: done_s < 1.0
    )
    assert result['status'] == 'interrupted'
    assert 0 < len(rows) < 16
    assert result['played_s'] == pytest.approx(1.0, abs=0.2)
    with Reader(folder / 'overlay') as reader:
        assert reader.message_count > 0


def test_row_file_is_named_in_the_result(build, robot, replay):
    result, rows, folder = replay(robot(build()).write())
    assert result['rows'] == len(rows)
    assert sorted(path.name for path in folder.iterdir()) == [
        'filmstrip',
        'overlay',
        'result.json',
        'steps.jsonl',
    ]
    assert result['bag'] == str(Path(result['bag']))
