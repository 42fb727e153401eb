"""What a robot hears from an active node."""

from __future__ import annotations

from node_bench import moves, seconds, values_of
from node_fakes import SPEED_M_S


def full_speed(message):
    return abs(message.twist.linear.x - SPEED_M_S) < 1e-9


def test_chunk_becomes_a_twist_in_the_command_frame(robot):
    robot.start_moving()
    twist = robot.next('twist', full_speed)
    assert twist.header.frame_id == 'base_link'
    now_s = robot.node.get_clock().now().nanoseconds * 1e-9
    assert abs(now_s - seconds(twist.header.stamp)) < 5.0
    assert (twist.twist.linear.y, twist.twist.linear.z, twist.twist.angular.z) == (0.0, 0.0, 0.0)
    assert robot.next('gripper', after=0).data == 1.0
    assert robot.wait_state('running')


def test_observation_holds_what_the_robot_sent(bench, robot):
    robot.start_moving('lift the 杯子')
    seen = bench.policy.observations[-1]
    assert seen.instruction == 'lift the 杯子'
    assert list(seen.images) == ['front', 'wrist']
    assert seen.images['front'].shape == (24, 32, 3)
    assert seen.proprio.tolist() == [0.4, 0.0, 0.0, 0.02]


def test_instruction_begins_an_episode_and_the_same_one_changes_nothing(robot):
    robot.start_moving('push')
    first = robot.next('reset', after=0)
    assert first.status[0].name == 'pruned_policy: subtask_reset'
    assert first.status[0].message == 'episode_start'
    keys = {'similarity', 'threshold', 'residual', 'max_staleness', 'episode', 'step'}
    assert set(values_of(first.status[0])) == keys
    robot.say('push')
    robot.next('inference', lambda m: values_of(m.status[0])['step'] != '0')
    robot.say('pull')
    second = robot.next('reset', after=1)
    assert second.status[0].message == 'instruction'
    assert values_of(second.status[0])['episode'] == '2'
    robot.next('twist', full_speed)


def test_reset_service_begins_an_episode(robot):
    robot.start_moving()
    assert robot.reset().success
    assert robot.next('reset', after=1).status[0].message == 'service'
    robot.next('twist', full_speed)


def test_pause_halts_and_resumes_from_a_fresh_observation(robot):
    robot.start_moving()
    before = len(robot.heard['twist'])
    assert robot.pause(True).success
    robot.wait_state('paused', after=0)
    robot.expect_stop(before)
    assert robot.pause(False).success
    robot.next('twist', full_speed)


def test_services_say_no_before_configure(robot):
    assert not robot.pause(True).success
    assert not robot.reset().success


def test_every_inference_tells_what_it_did(robot):
    robot.start_moving()
    message = robot.next(
        'inference', lambda m: len(m.status) == 2 and m.status[1].message == 'pruned'
    )
    assert [status.name for status in message.status] == [
        'pruned_policy: inference',
        'pruned_policy: pruning',
    ]
    values = {**values_of(message.status[0]), **values_of(message.status[1])}
    assert values['accepted'] == 'true'
    assert (values['tokens_total'], values['tokens_computed']) == ('8', '4')
    assert (values['pruning_ratio'], values['similarity']) == ('0.5000', '0.7500')
    stamps = {values['image_stamp_s/front'], values['image_stamp_s/wrist']}
    assert f'{seconds(message.header.stamp):.6f}' in stamps
    robot.wait(lambda: {m.data for m in robot.heard['ratio']} == {0.0, 0.5}, 'both ratios')


def test_planned_path_leads_from_the_pose_along_the_chunk(robot):
    robot.start_moving()
    path = robot.next('path', lambda m: len(m.poses) > 2)
    assert path.header.frame_id == 'base_link'
    along = [item.pose.position.x for item in path.poses]
    assert along[0] == 0.4
    assert along == sorted(along)
    robot.stop_feeding()
    robot.say('')
    assert robot.next('path', lambda m: not m.poses)


def test_dry_run_infers_but_commands_nothing(start_node):
    with start_node(dry_run=True, instruction='go') as bench:
        robot = bench.robot
        assert robot.transition('configure')
        assert robot.transition('activate')
        robot.wait_log('DRY RUN')
        robot.start_feeding()
        robot.wait_state('running', after=0)
        robot.next('inference')
        assert robot.expect_silence() == 0
        assert not robot.heard['gripper']
        assert robot.task('control', lambda s: values_of(s)['dry_run'] == 'true')


def test_pose_mode_publishes_a_target_ahead_of_the_arm(start_node):
    with start_node(command_type='pose', command_frame='world', instruction='go') as bench:
        robot = bench.robot

        def in_world(message):
            message.header.frame_id = 'world'
            return message

        robot.change_pose = in_world
        assert robot.transition('configure')
        assert robot.transition('activate')
        robot.wait_log(f'LIVE: commands on {robot.name}/ee_target WILL MOVE THE ROBOT')
        robot.start_feeding()
        target = robot.next('target', lambda m: m.pose.position.x > 0.401)
        assert target.header.frame_id == 'world'
        assert target.pose.orientation.w == 1.0
        assert not robot.heard['twist']


def test_namespaced_node_names_itself_in_full(start_node):
    with start_node() as bench:
        bench.robot.start_moving()
        name = bench.node.get_fully_qualified_name()
        assert name.startswith('/robot')
        assert bench.robot.task('control').name == f'{name}: control'
        assert moves(bench.robot.next('twist', full_speed))
