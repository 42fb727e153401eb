"""What the node says about itself."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus
from node_bench import LATCHED, RELIABLE, moves, seconds, values_of
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from safe_vla_ros.runtime.message_reading import read_header

OK, WARN, ERROR = b'\x00', b'\x01', b'\x02'


def test_diagnostics_come_in_every_state(robot):
    assert robot.task('control').message == 'waiting: the node is not configured'
    assert robot.transition('configure')
    status = robot.task('control', lambda s: 'not active' in s.message)
    assert status.level == WARN
    assert status.hardware_id == 'none'


def test_running_node_measures_itself(robot):
    robot.start_moving()
    pruning = values_of(robot.task('pruning', lambda s: int(values_of(s)['passes']) > 2))
    assert pruning['key_step_reasons'] == 'episode_start 1'
    assert pruning['method'] == 'safe'
    tasks = {s.name.rpartition(' ')[2]: s for s in robot.heard['diagnostics'][-1].status}
    assert list(tasks) == ['inputs', 'inference', 'pruning', 'control']
    assert (tasks['inputs'].level, tasks['inputs'].message) == (OK, 'fresh')
    inference, control = values_of(tasks['inference']), values_of(tasks['control'])
    assert float(inference['latency_ms']) > 0.0
    assert inference['failures'] == '0'
    for key in ('control_hz', 'tick_deviation_ms_p99', 'tick_deviation_ms_max', 'missed_ticks'):
        assert float(control[key]) >= 0.0


def test_diagnostics_turn_from_waiting_to_stale(robot):
    assert robot.transition('configure')
    assert robot.transition('activate')
    assert robot.task('control', lambda s: 'no instruction' in s.message).level == WARN
    robot.move()
    robot.silent.add('pose')
    assert robot.set_one_by_one(observation_timeout_s=0.5)[0].successful
    assert robot.task('control', lambda s: s.message.startswith('stale')).level == ERROR
    assert robot.task('inputs', lambda s: s.message.startswith('stale')).level == ERROR


def test_state_is_latched_for_whoever_comes_late(robot):
    robot.start_moving()
    robot.wait_state('running')
    late = robot.listen('late', DiagnosticStatus, f'{robot.name}/state', LATCHED)
    assert values_of(robot.next('late', after=0))['state'] == 'running'
    robot.node.destroy_subscription(late)


def test_camera_with_incompatible_qos_is_a_warning_until_it_goes(start_node):
    with start_node() as bench:
        robot, node = bench.robot, bench.node
        topic = f'{robot.name.rpartition("/")[0]}/front/image_raw'
        node.declare_parameter(f'qos_overrides.{topic}.subscription.reliability', 'reliable')
        assert robot.transition('configure')
        status = robot.task('inputs', lambda s: 'incompatible QoS' in s.message)
        assert status.level == WARN
        assert values_of(status)['incompatible_qos'] == f'{topic} 1'
        robot.node.destroy_publisher(robot.images['front'])
        robot.images['front'] = robot.node.create_publisher(Image, topic, RELIABLE)
        assert robot.task('inputs', lambda s: 'incompatible' not in s.message)
        assert robot.transition('activate')
        robot.move()


def test_overlays_are_drawn_only_for_those_who_look(bench, robot):
    robot.start_moving()
    topic = f'{robot.name}/saliency/front/image_raw'
    raw = robot.listen('overlay', Image, topic, RELIABLE)
    overlay = robot.next('overlay')
    assert overlay.encoding == 'rgb8'
    assert overlay.header.frame_id == 'front_optical_frame'
    headers = {o.image_headers['front'] for o in bench.policy.observations}
    assert read_header(overlay) in headers
    assert len(overlay.data) == overlay.step * overlay.height
    robot.node.destroy_subscription(raw)
    jpeg = robot.listen('jpeg', CompressedImage, f'{topic}/compressed', RELIABLE)
    assert bytes(robot.next('jpeg').data[:3]) == b'\xff\xd8\xff'
    robot.node.destroy_subscription(jpeg)


def test_overlay_rate_is_limited(robot):
    robot.set_atomically(saliency__max_rate_hz=1.0)
    robot.start_moving()
    raw = robot.listen('overlay', Image, f'{robot.name}/saliency/wrist/image_raw', RELIABLE)
    robot.next('overlay', after=2)
    overlays, reports = len(robot.heard['overlay']), len(robot.heard['inference'])
    assert reports > overlays
    robot.node.destroy_subscription(raw)
    robot.set_atomically(saliency__max_rate_hz=5.0)


class SimulatedTime:
    """Publishes /clock as the test says; the robot stamps with it, too."""

    def __init__(self, robot):
        self.robot = robot
        self.publisher = robot.node.create_publisher(Clock, '/clock', RELIABLE)
        self.now_s = 100.0

    def step(self, by_s=0.01):
        self.now_s += by_s
        message = Clock()
        message.clock.sec, message.clock.nanosec = int(self.now_s), int(self.now_s % 1 * 1e9)
        self.publisher.publish(message)


def test_simulated_time_drives_stamps_and_deactivation_ends_where_it_stands(start_node):
    with start_node(use_sim_time=True, instruction='go') as bench:
        robot = bench.robot
        clock = SimulatedTime(robot)
        assert robot.transition('configure')
        assert robot.transition('activate')
        robot.wait_matched(clock.publisher, robot.pose)
        stop_clock = robot.every(0.01, clock.step)
        robot.start_feeding()
        twist = robot.next('twist', moves)
        assert 100.0 < seconds(twist.header.stamp) <= clock.now_s
        stop_clock()
        robot.stop_feeding()
        assert robot.transition('deactivate')
        assert not moves(robot.heard['twist'][-1])
        robot.expect_silence()


def test_the_memory_of_an_episode_ends_with_it(bench, robot):
    overlay = robot.listen('overlay', Image, f'{robot.name}/saliency/front/image_raw', RELIABLE)
    try:
        robot.start_moving()
        robot.next('overlay', after=0)
        robot.task('inference', lambda s: int(values_of(s)['inferences']) > 2)
        assert len(bench.policy.memories) == 1
        assert robot.pause(True).success
        robot.wait(lambda: not bench.policy.memories, 'the end of the memory')
    finally:
        robot.pause(False)
        robot.node.destroy_subscription(overlay)
