"""Whatever goes wrong: the promised halt and reason, no command after it, and the node lives on."""

from __future__ import annotations

import math

import pytest
from node_bench import moves, values_of
from rclpy.duration import Duration
from rclpy.time import Time


def expect_halt_and_recovery(robot, state, reason, mend):
    """Wait for the state, zeros and silence; then mend and see the arm move again."""
    before = len(robot.heard['twist'])
    robot.wait_state(state, reason, after=0)
    robot.expect_stop(before)
    mend()
    robot.next('twist', moves)
    robot.wait_state('running')


@pytest.mark.parametrize('source', ['wrist', 'pose', 'joints'])
def test_silent_input_halts_and_its_return_resumes(robot, source):
    robot.set_one_by_one(observation_timeout_s=0.7)
    robot.start_moving()
    robot.silent.add(source)
    reason = {'wrist': "camera 'wrist'", 'pose': 'ee_pose', 'joints': "joint 'finger'"}[source]
    expect_halt_and_recovery(robot, 'stale', reason, robot.silent.clear)


def restamped(change):
    def rewrite(message):
        message.header.stamp = change(Time.from_msg(message.header.stamp)).to_msg()
        return message

    return rewrite


BAD_STAMPS = {
    'stale': (lambda t: t - Duration(seconds=30.0), 'stamp older than observation_timeout_s'),
    'future': (lambda t: t + Duration(seconds=30.0), 'in the future'),
    'zero': (lambda t: Time(), 'zero stamp'),
}


@pytest.mark.parametrize(
    ('source', 'kind'),
    [
        ('front', 'stale'),
        ('front', 'future'),
        ('wrist', 'zero'),
        ('pose', 'stale'),
        ('joints', 'zero'),
    ],
)
def test_bad_stamp_halts_with_its_own_text(robot, source, kind):
    change, reason = BAD_STAMPS[kind]
    robot.start_moving()
    spoil(robot, source, restamped(change))
    expect_halt_and_recovery(robot, 'stale', reason, lambda: mend(robot))


def spoil(robot, source, change):
    if source == 'pose':
        robot.change_pose = change
    elif source == 'joints':
        robot.change_joints = change
    else:
        robot.change_image[source] = change


def mend(robot):
    robot.change_image = dict.fromkeys(robot.change_image, lambda message: message)
    robot.change_pose = robot.change_joints = lambda message: message


def with_nan_position(message):
    message.pose.position.y = math.nan
    return message


def without_orientation(message):
    message.pose.orientation.w = 0.0
    return message


def in_another_frame(message):
    message.header.frame_id = 'tool0'
    return message


def with_nan_joint(message):
    message.position = [math.inf]
    return message


BAD_VALUES = {
    'nan pose': ('pose', with_nan_position, 'ee_pose holds a value that is not finite'),
    'no orientation': ('pose', without_orientation, 'quaternion of length 0'),
    'wrong frame': ('pose', in_another_frame, "must be in command_frame 'base_link'"),
    'infinite joint': ('joints', with_nan_joint, "joint 'finger' that is not finite"),
}


@pytest.mark.parametrize('kind', BAD_VALUES)
def test_bad_proprioception_halts(robot, kind):
    source, change, reason = BAD_VALUES[kind]
    robot.start_moving()
    spoil(robot, source, change)
    expect_halt_and_recovery(robot, 'stale', reason, lambda: mend(robot))


def test_pose_in_another_frame_is_an_error(robot):
    robot.start_moving()
    robot.change_pose = in_another_frame
    status = robot.task('inputs', lambda s: s.level == b'\x02')
    assert "ee_pose is in frame 'tool0'" in status.message


def test_joint_states_of_unequal_lengths_halt_at_once(robot):
    def one_too_many(message):
        message.name = ['finger', 'other']
        return message

    robot.start_moving()
    robot.change_joints = one_too_many
    reason = "joint 'finger' has 2 names and 1 positions"
    expect_halt_and_recovery(robot, 'stale', reason, lambda: mend(robot))


@pytest.mark.parametrize('text', ['', '   '])
def test_empty_instruction_halts_until_there_is_one(robot, text):
    robot.start_moving()
    robot.say(text)
    expect_halt_and_recovery(robot, 'waiting', 'no instruction', lambda: robot.say('go'))


@pytest.mark.parametrize('text', ['push ' * 200, 'Öffne die Schublade 引き出し 🤖', 'a\x01b\nc'])
def test_strange_instruction_is_taken_as_it_is(bench, robot, text):
    robot.start_moving()
    robot.say(text)
    robot.wait(
        lambda: bench.policy.observations[-1].instruction == text.strip(), 'an observation of it'
    )
    robot.next('twist', moves)


def test_chunk_that_is_not_finite_is_refused_whole(bench, robot):
    robot.start_moving()
    before = len(robot.heard['twist'])
    bench.policy.not_finite = True
    robot.wait_state('halting', 'a chunk was refused', after=0)
    robot.wait_state('failed', '3 inferences failed in a row', after=0)
    robot.expect_stop(before)
    assert all(math.isfinite(m.twist.linear.x) for m in robot.heard['twist'])
    assert robot.task('inference').level == b'\x02'
    bench.policy.not_finite = False
    robot.expect_silence()
    assert robot.reset().success
    robot.next('twist', moves)


def test_errors_in_a_row_latch_failed_until_reactivation(bench, robot):
    robot.start_moving()
    before = len(robot.heard['twist'])
    bench.policy.fault = RuntimeError('out of memory')
    robot.wait_state('failed', 'RuntimeError: out of memory', after=0)
    assert values_of(robot.heard['inference'][-1].status[0])['error'].endswith('out of memory')
    robot.expect_stop(before)
    bench.policy.fault = None
    robot.say('something else')
    robot.expect_silence()
    assert robot.transition('deactivate')
    assert robot.transition('activate')
    robot.next('twist', moves)


def test_starvation_halts_after_the_grace_and_a_late_chunk_resumes(bench, robot):
    robot.set_one_by_one(starvation_grace_s=0.1)
    robot.start_moving()
    bench.policy.gate.clear()
    expect_halt_and_recovery(robot, 'starved', 'no new chunk came', bench.policy.gate.set)


def test_policy_that_is_too_slow_says_so_and_moves_nothing(start_node):
    with start_node(max_chunk_age_s=0.5, instruction='slowly') as bench:
        robot = bench.robot
        assert robot.transition('configure')
        robot.wait_log('an inference takes longer than max_chunk_age_s (0.5 s)')
        assert robot.transition('activate')
        robot.wait_matched(*robot.images.values(), robot.pose, robot.joints)
        robot.start_feeding()
        refused = robot.next('inference').status[0]
        assert 'allowed is max_chunk_age_s (0.5 s)' in refused.message
        robot.wait_state('waiting', 'allowed is max_chunk_age_s (0.5 s)')
        assert robot.heard['twist'] == []
        assert robot.set_one_by_one(max_chunk_age_s=5.0)[0].successful
        robot.next('twist', moves)


@pytest.mark.parametrize('interruption', ['reset', 'pause', 'instruction', 'deactivate'])
def test_chunk_of_an_older_epoch_is_dropped(bench, robot, interruption):
    robot.start_moving()
    bench.policy.entered.clear()
    bench.policy.gate.clear()
    robot.wait(bench.policy.entered.is_set, 'an inference')
    before = len(robot.heard['inference'])
    robot.stop_feeding()
    {
        'reset': robot.reset,
        'pause': lambda: robot.pause(True),
        'instruction': lambda: robot.say('other'),
        'deactivate': lambda: robot.transition('deactivate'),
    }[interruption]()
    quiet = robot.expect_silence()
    bench.policy.gate.set()
    if interruption == 'deactivate':
        assert robot.lifecycle_state() == 'inactive'
    else:
        report = robot.next(
            'inference', lambda m: values_of(m.status[0])['accepted'] == 'false', after=before
        )
        assert report.status[0].message.startswith('a new episode, a pause or a deactivation')
    assert robot.expect_silence() == quiet
    assert not moves(robot.heard['twist'][-1])


def test_an_instruction_of_a_megabyte_is_refused_and_the_old_one_stays(robot):
    robot.start_moving()
    for _ in range(20):
        robot.say('x' * 10**6)
    robot.wait_log('instruction ignored: instruction has 1000000 characters; allowed are 1000')
    robot.next('twist', moves)
    told = values_of(robot.task('inputs'))
    assert told['instruction'] == 'go'
    robot.say('y' * 1000)
    told = values_of(robot.task('inputs', lambda s: values_of(s)['instruction'] != 'go'))
    assert told['instruction'] == 'y' * 299 + '…'
    robot.next('twist', moves, after=len(robot.heard['twist']))
