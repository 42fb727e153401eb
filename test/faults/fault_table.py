"""The fault table: what goes wrong, what the node says, and what it may command then."""

from __future__ import annotations

import random
import signal
import struct
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from command_rules import Largest
from fault_stage import (
    BUSY,
    HOLD,
    LIMITS,
    Mark,
    Situation,
    Stage,
    at_full_speed,
    compressed,
    compressed_as,
)
from geometry_msgs.msg import TwistStamped
from node_bench import CAMERAS, image, moves, values_of
from spoiled_messages import BAD_STAMPS, BAD_VALUES, mend, restamped, spoil

from safe_vla_ros.runtime.parameters import PARAMETERS

LEAVING_S = 4.0
"""A halt takes at most two seconds; the rest is for threads and topics."""


class Commands(Enum):
    """What may be commanded after the fault; the value is what the table says."""

    HALTS = 'brakes, zeros, silence; moves again when mended'
    LATCHES = 'brakes, zeros, silence'
    RESUMES = 'brakes, then moves again by itself'
    GOES_ON = 'motion goes on'
    SILENT = 'nothing'
    LEAVES = 'brakes, a zero, and the process ends with 0'
    DIES = 'nothing more; the robot has to stop by itself'


@dataclass(frozen=True)
class Observed:
    """What a run of a row showed.

    Attributes:
        state: The state as it was told.
        reason: Its reason, or what else was told.
        rest_s: Time from the fault to the first zero; None where motion went on or there was none.
        largest: Largest speeds and changes of speed.
    """

    state: str
    reason: str
    rest_s: float | None
    largest: Largest


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        fault: What goes wrong, in words; the row's name.
        cause: Makes it go wrong; may return what somebody was told about it.
        state: The state that the node must tell; empty where it cannot tell any.
        reason: What the state's reason, or what ``cause`` returns, must hold.
        commands: What may be commanded.
        situation: What the node is doing before.
        mend: Ends the fault.
        parameters: Given when the node starts.
        settings: Set before the row, and set back after it.
        rate: Rate of simulated time; None for system time, 0 for simulated time without /clock.
        core: Whether it is part of the short run.
        fresh: Whether the node must have done nothing before.
        shared_name: Whether another node of the same name tells its state, too.
    """

    fault: str
    cause: Callable[[Stage], str | None]
    state: str
    reason: str
    commands: Commands
    situation: Situation = Situation.RUNNING
    mend: Callable[[Stage], Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    rate: float | None = None
    core: bool = False
    fresh: bool = False
    shared_name: bool = False

    @property
    def simulated(self) -> bool:
        return self.rate is not None

    @property
    def unknown_parameters(self) -> list[str]:
        """Parameters of the row that the node does not have."""
        given = [name.replace('__', '.') for name in (*self.parameters, *self.settings)]
        return [name for name in given if name not in PARAMETERS]

    def run(self, stage: Stage) -> Observed:
        """Run the row on a stage that nobody has moved yet.

        Raises:
            AssertionError: The node did something else than the row says.
        """
        patient = BUSY if self.commands is GOES_ON else {}
        stage.prepare({**patient, **self.settings}, self.rate)
        stage.bring_to(self.situation)
        mark = stage.mark()
        stage.begin_fault()
        told = self.cause(stage) or ''
        state, reason, rest_s = CHECKS[self.commands](self, stage, mark, told)
        stage.end_second()
        if self.commands not in {Commands.LEAVES, Commands.DIES}:
            stage.rest()
        for recorder in (stage.recorder, stage.second):
            broken = recorder.violations(ends_at_rest=self.commands is not Commands.DIES)
            assert not broken, '\n'.join(broken)
        return Observed(state, reason, rest_s, stage.recorder.largest())


# What must be seen for each kind of row: returns state, reason and the time to rest.


def check_halt(row: Row, stage: Stage, mark: Mark, _told: str) -> tuple[str, str, float | None]:
    told = values_of(stage.wait_state(row.state, row.reason, mark))
    rest_s = stage.since_fault(stage.wait_zero(mark)) if row.situation.moving else None
    stage.wait_silence(mark)
    if row.mend is not None:
        stage.may_move()
        again = stage.mark()
        row.mend(stage)
        stage.wait_state('running', '', again)
        stage.robot.wait(lambda: any(map(moves, stage.commands[again.commands :])), 'motion')
    return told['state'], told['reason'], rest_s


def check_resumed(row: Row, stage: Stage, mark: Mark, _told: str) -> tuple[str, str, float | None]:
    told = values_of(stage.wait_state(row.state, row.reason, mark))
    commands = stage.commands
    stage.robot.wait(
        lambda: not all(map(at_full_speed, commands[mark.commands :])), 'a slower command'
    )
    stage.wait_full_speed()
    stage.robot.wait(lambda: stage.robot.states()[-1] == 'running', 'running')
    zeros = [c for c in stage.recorder.heard[mark.commands :] if c.is_zero]
    return told['state'], told['reason'], stage.since_fault(zeros[0].received_s) if zeros else None


def check_going_on(row: Row, stage: Stage, mark: Mark, told: str) -> tuple[str, str, None]:
    assert row.reason in told, told
    stage.wait_full_speed()
    assert not [c for c in stage.recorder.heard[mark.commands :] if c.is_zero]
    states = [values_of(message) for message in stage.robot.heard['state'][mark.states :]]
    strange = [state for state in states if state['state'] != 'running']
    assert row.shared_name or not strange, strange
    return 'running', told, None


def check_silence(row: Row, stage: Stage, mark: Mark, told: str) -> tuple[str, str, None]:
    said = {'state': '', 'reason': told}
    if row.state:
        said = values_of(stage.wait_state(row.state, row.reason, mark))
    stage.wait_silence(mark)
    assert len(stage.commands) == mark.commands, 'something was commanded'
    return said['state'], said['reason'], None


def check_leaving(row: Row, stage: Stage, mark: Mark, _told: str) -> tuple[str, str, float | None]:
    assert stage.process.wait() == 0
    left_s = stage.since_fault(time.time())
    assert left_s < LEAVING_S, f'leaving took {left_s:.1f} s'
    stage.wait_silence(mark)
    rest_s = None
    if row.situation.moving:
        rest_s = stage.since_fault(stage.wait_zero(mark))
    else:
        assert len(stage.commands) == mark.commands, 'something was commanded'
    return '', f'ended after {left_s:.1f} s', rest_s


def check_death(row: Row, stage: Stage, mark: Mark, _told: str) -> tuple[str, str, None]:
    assert stage.process.wait() == -signal.SIGKILL
    stage.wait_silence(mark)
    return '', 'killed', None


CHECKS = {
    Commands.HALTS: check_halt,
    Commands.LATCHES: check_halt,
    Commands.RESUMES: check_resumed,
    Commands.GOES_ON: check_going_on,
    Commands.SILENT: check_silence,
    Commands.LEAVES: check_leaving,
    Commands.DIES: check_death,
}


# Causes

READY, LIVE = 'is ready: cameras', 'LIVE: commands on'


def set_system_clock(by_s: float) -> Callable[[Stage], None]:
    return lambda stage: stage.system_clock.set(by_s)


def stop_process(for_s: float) -> Callable[[Stage], None]:
    def cause(stage: Stage) -> None:
        stage.process.child.send_signal(signal.SIGSTOP)
        stage.observe_for(for_s)
        stage.process.child.send_signal(signal.SIGCONT)

    return cause


def send_signal(number: signal.Signals) -> Callable[[Stage], None]:
    return lambda stage: stage.process.child.send_signal(number)


def jump_clock_back(stage: Stage) -> None:
    stage.clock.jump(-10.0)


def activate_without_clock(stage: Stage) -> None:
    assert stage.transition('activate')
    stage.robot.start_feeding()
    stage.robot.say('go')


def toggle_use_sim_time(stage: Stage) -> str:
    (answer,) = stage.robot.set_one_by_one(use_sim_time=not stage.simulated)
    assert not answer.successful
    stage.observe_for(1.0)
    return answer.reason


def move_in_simulated_time(stage: Stage) -> None:
    stage.observe_for(3.0)


def silence(source: str) -> Callable[[Stage], None]:
    return lambda stage: stage.robot.silent.add(source)


def hear_again(stage: Stage) -> None:
    stage.robot.silent.clear()


def spoils(source: str, change: Callable[[Any], Any]) -> Callable[[Stage], None]:
    return lambda stage: spoil(stage.robot, source, change)


def spoils_for_a_while(source: str, change: Callable[[Any], Any]) -> Callable[[Stage], None]:
    def cause(stage: Stage) -> None:
        spoil(stage.robot, source, change)
        stage.observe_for(1.0)

    return cause


def mends(stage: Stage) -> None:
    mend(stage.robot)


def say(text: str) -> Callable[[Stage], None]:
    return lambda stage: stage.robot.say(text)


def move_as_fast_as_allowed(stage: Stage) -> None:
    stage.robot.say('large slowly')
    fast = 0.99 * LIMITS['max_linear_speed']
    stage.robot.wait(lambda: stage.recorder.largest().linear_speed > fast, 'the largest speed')


def say_go_and_reset(stage: Stage) -> None:
    stage.robot.say('go')
    assert stage.robot.reset().success


def mend_and_reset(stage: Stage) -> None:
    mend(stage.robot)
    if stage.parameters.get('image_transport') == 'compressed':
        stage.robot.change_image = dict.fromkeys(CAMERAS, compressed)
    assert stage.robot.reset().success
    while stage.robot.states()[-1] == 'failed':
        # What is still wrong with the newest message latches it again.
        stage.observe_for(0.3)
        assert stage.robot.reset().success


def reset(stage: Stage) -> None:
    assert stage.robot.reset().success


def one_name_too_many(message: Any) -> Any:
    message.name = ['finger', 'other']
    return message


def without_joints(message: Any) -> Any:
    message.name, message.position = [], []
    return message


def with_huge_position(message: Any) -> Any:
    message.pose.position.y = float(np.finfo(np.float64).max)
    return message


def with_huge_orientation(message: Any) -> Any:
    message.pose.orientation.w = float(np.finfo(np.float64).max)
    return message


def with_huge_joint(message: Any) -> Any:
    message.position = [float(np.finfo(np.float64).max)]
    return message


def with_too_many_rows(message: Any) -> Any:
    message.height = 2**32 - 1
    return message


def png_that_declares(height: int, width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        )

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', pixels) + chunk(b'IEND', b'')
    )


def lasts(action: Callable[[Stage], Callable[[], Any]], period_s: float, duration_s: float):
    """Return a cause that does something again and again for a while."""

    def cause(stage: Stage) -> None:
        with stage.doing(action(stage), period_s):
            stage.observe_for(duration_s)

    return cause


def publish_images(height: int, width: int) -> Callable[[Stage], Callable[[], None]]:
    def action(stage: Stage) -> Callable[[], None]:
        robot = stage.robot
        stamp = robot.node.get_clock().now().to_msg()
        message = image(stamp, 'front', height, width)

        def publish() -> None:
            message.header.stamp = robot.node.get_clock().now().to_msg()
            robot.images['front'].publish(message)

        return publish

    return action


def set_parameters(stage: Stage) -> Callable[[], None]:
    chance = random.Random(7)
    choices = {
        'max_linear_speed': (0.15, 0.25, -1.0, 'fast'),
        'max_linear_accel': (0.4, 0.5, 0.0),
        'pruning__keep_ratio': (0.25, 0.5, 7.0),
        'execute_steps': (3, 4, 99),
        'cameras': (['front'], []),
        'no_such_parameter': (1,),
    }

    def change() -> None:
        names = chance.sample(sorted(choices), 2)
        stage.robot.set_atomically(**{name: chance.choice(choices[name]) for name in names})

    return change


def say_many_things(stage: Stage) -> None:
    for number in range(300):
        stage.robot.say(f'task {number} slowly')


def storm_of_transitions(stage: Stage) -> None:
    chance = random.Random(11)
    names = ['configure', 'activate', 'deactivate', 'cleanup']
    for _ in range(40):
        stage.transition(chance.choice(names))
    for _ in range(4):
        # Without waiting for one another's answer.
        for answer in [stage.robot.begin_transition(chance.choice(names)) for _ in range(8)]:
            answer()
    state = stage.robot.lifecycle_state()
    if state == 'unconfigured':
        assert stage.transition('configure')
    if state != 'active':
        assert stage.transition('activate')
    stage.may_move()
    stage.robot.say('something else')
    stage.robot.say('go')


def configure_second(stage: Stage) -> None:
    """Start a second node and have it configured; the first one may refuse what both hear."""
    ready = count_logs(stage, READY)
    stage.start_second()
    stage.robot.transition('configure')
    stage.robot.wait(lambda: count_logs(stage, READY) > ready, 'the second node to be configured')


def activate_second(stage: Stage) -> None:
    """Ask until the second node is asked, too; the first one may be the first to answer."""
    live = count_logs(stage, LIVE)
    while count_logs(stage, LIVE) == live:
        stage.robot.transition('activate')


def count_logs(stage: Stage, text: str) -> int:
    return sum(text in message.msg for message in stage.robot.heard['log'])


def activate_second_when_it_hears_the_first(stage: Stage) -> str:
    configure_second(stage)
    stage.robot.task(
        'control',
        lambda s: 'other publishers' in s.message and values_of(s)['state'] == 'waiting',
    )
    stage.robot.transition('activate')
    return stage.robot.wait_log('activate failed: another').msg


def activate_second_at_once(stage: Stage) -> str:
    configure_second(stage)
    activate_second(stage)
    # It is refused, or active and `failed` as soon as it hears the first one.
    robot = stage.robot
    told = robot.wait(
        lambda: [
            m for m in robot.heard['log'] if m.msg.startswith(('activate failed', 'state: failed'))
        ],
        'what the second node says',
    )
    stage.observe_for(1.0)
    assert not stage.second.heard, 'the second node commands the robot'
    return told[0].msg


def move_second_while_first_stands_still(stage: Stage) -> None:
    configure_second(stage)
    robot = stage.robot
    stage.process.child.send_signal(signal.SIGSTOP)
    # A robot may be given to another node once it has not been commanded for a second.
    stage.observe_for(1.5)
    activate_second(stage)
    robot.say('go')
    robot.wait(lambda: any(not c.is_zero for c in stage.second.heard), 'the second one to move')
    stage.begin_fault()
    stage.process.child.send_signal(signal.SIGCONT)
    robot.wait(lambda: robot.states().count('failed') == 2, 'both to fail')
    robot.wait(lambda: stage.second.heard[-1].is_zero, 'a zero of the second node')


def advertise_commands(stage: Stage) -> str:
    robot = stage.robot
    publisher = robot.node.create_publisher(TwistStamped, f'{robot.name}/ee_twist', 1)
    text = robot.task('control', lambda s: 'other publishers' in s.message).message
    robot.node.destroy_publisher(publisher)
    return text


def command_the_robot_too(stage: Stage) -> None:
    robot = stage.robot
    publisher = robot.node.create_publisher(TwistStamped, f'{robot.name}/ee_twist', 1)
    message = TwistStamped()
    message.header.frame_id = 'somebody'
    # Again and again: the node may not hear a new publisher yet.
    with stage.doing(lambda: publisher.publish(message), 0.05):
        robot.wait_state('failed', 'another publisher')
    robot.node.destroy_publisher(publisher)


# The table

HALTS, LATCHES, RESUMES, GOES_ON, SILENT, LEAVES, DIES = Commands
WORKSPACE = {'workspace_min': [-1.0, -1.0, -1.0], 'workspace_max': [1.0, 1.0, 1.0]}
QUICK = {'observation_timeout_s': 0.7}
SOURCES = {'front': 'a camera', 'pose': 'the pose', 'joints': 'the joints'}
STAMP_TEXTS = {'stale': 'old', 'future': 'in the future', 'zero': 'zero'}

CLOCKS = [
    Row(
        'system clock set back by 20 s',
        set_system_clock(-20.0),
        'halting',
        'the clock jumped back by 20 s',
        RESUMES,
        core=True,
    ),
    Row(
        'system clock set ahead by 20 s',
        set_system_clock(20.0),
        'halting',
        'no command for 20',
        RESUMES,
        core=True,
    ),
    Row(
        'use_sim_time switched on in motion',
        toggle_use_sim_time,
        'running',
        'use_sim_time cannot change while the node is active',
        GOES_ON,
        core=True,
    ),
    Row(
        'simulated time without any /clock',
        activate_without_clock,
        'stale',
        'simulated time stands still: there is no /clock',
        SILENT,
        situation=Situation.INACTIVE,
        rate=0.0,
        fresh=True,
    ),
    *(
        row
        for rate in (1.0, 0.1, 5.0)
        for row in (
            Row(
                f'simulated time at {rate:g} times real time',
                move_in_simulated_time,
                'running',
                '',
                GOES_ON,
                rate=rate,
            ),
            Row(
                f'/clock stops at {rate:g} times real time',
                lambda stage: stage.clock.stop(),
                'stale',
                'simulated time stands still: no new /clock comes',
                HALTS,
                mend=lambda stage, rate=rate: stage.clock.run(rate),
                rate=rate,
                core=rate == 1.0,
            ),
        )
    ),
    Row(
        '/clock jumps back by 10 s',
        jump_clock_back,
        'halting',
        'the clock jumped back by',
        RESUMES,
        rate=1.0,
        core=True,
    ),
]

STALLS = [
    *(
        Row(
            f'the process stands still for {stall_s:g} s',
            stop_process(stall_s),
            'halting',
            'the node stalled: no command for',
            RESUMES,
            core=stall_s == 0.3,
        )
        for stall_s in (0.3, 1.0, 3.0)
    ),
    Row(
        'the process stands still for 0.3 s, and the robot holds commands for ever',
        stop_process(0.3),
        'halting',
        'the node stalled: no command for',
        RESUMES,
        settings={HOLD: 0.0},
    ),
]

INPUTS = [
    Row(
        'a camera dies',
        silence('front'),
        'stale',
        "camera 'front'",
        HALTS,
        mend=hear_again,
        settings=QUICK,
        core=True,
    ),
    Row(
        'the pose is lost',
        silence('pose'),
        'stale',
        'ee_pose',
        HALTS,
        mend=hear_again,
        settings=QUICK,
    ),
    Row(
        'the joint states are lost',
        silence('joints'),
        'stale',
        "joint 'finger'",
        HALTS,
        mend=hear_again,
        settings=QUICK,
    ),
    *(
        Row(
            f'stamps of {SOURCES[source]} are {STAMP_TEXTS[kind]}',
            spoils(source, restamped(BAD_STAMPS[kind][0])),
            'stale',
            BAD_STAMPS[kind][1],
            HALTS,
            mend=mends,
        )
        for source in SOURCES
        for kind in BAD_STAMPS
    ),
    *(
        Row(
            f'bad values: {kind}',
            spoils(source, change),
            'stale',
            reason,
            HALTS,
            mend=mends,
        )
        for kind, (source, change, reason) in BAD_VALUES.items()
    ),
    Row(
        'bad values: huge quaternion',
        spoils('pose', with_huge_orientation),
        'stale',
        'ee_pose has a quaternion of length',
        HALTS,
        mend=mends,
    ),
    Row(
        'bad values: huge position in a workspace',
        spoils('pose', with_huge_position),
        'failed',
        'outside the workspace',
        HALTS,
        mend=mend_and_reset,
        parameters=WORKSPACE,
    ),
    Row(
        'bad values: huge position, and the policy does not mind',
        spoils_for_a_while('pose', with_huge_position),
        'running',
        '',
        GOES_ON,
    ),
    Row(
        'bad values: huge joint position, and the policy does not mind',
        spoils_for_a_while('joints', with_huge_joint),
        'running',
        '',
        GOES_ON,
    ),
    Row(
        'joint_states has more names than positions',
        spoils('joints', one_name_too_many),
        'stale',
        "joint 'finger'",
        HALTS,
        mend=mends,
        settings=QUICK,
    ),
    Row(
        'joint_states is empty',
        spoils('joints', without_joints),
        'stale',
        "joint 'finger'",
        HALTS,
        mend=mends,
        settings=QUICK,
    ),
    Row(
        'an image declares more rows than it has',
        spoils('front', with_too_many_rows),
        'failed',
        "camera 'front'",
        HALTS,
        mend=mend_and_reset,
    ),
    Row(
        'a PNG declares 60000 x 60000 pixels',
        spoils('front', compressed_as(png_that_declares(60_000, 60_000))),
        'failed',
        "camera 'front'",
        HALTS,
        mend=mend_and_reset,
        parameters={'image_transport': 'compressed'},
    ),
    Row(
        'a compressed image is no image',
        spoils('front', compressed_as(bytes(1000))),
        'failed',
        "camera 'front'",
        HALTS,
        mend=mend_and_reset,
        parameters={'image_transport': 'compressed'},
    ),
]

POLICY = [
    Row(
        'the policy fails',
        say('fault'),
        'failed',
        'inferences failed in a row',
        HALTS,
        mend=say_go_and_reset,
    ),
    Row(
        'the policy answers with NaN',
        say('nan'),
        'failed',
        'inferences failed in a row',
        HALTS,
        mend=say_go_and_reset,
        core=True,
    ),
    Row(
        'the policy answers with the largest numbers there are',
        say('huge'),
        'failed',
        'inferences failed in a row',
        HALTS,
        mend=say_go_and_reset,
    ),
    Row(
        'the policy answers with 99 m and 99 rad per action',
        move_as_fast_as_allowed,
        'halting',
        'a new instruction',
        RESUMES,
    ),
    Row(
        'the policy is too slow',
        say('slowly'),
        'starved',
        'no new chunk came within 0.1 s',
        RESUMES,
        settings={'starvation_grace_s': 0.1},
    ),
]

STORMS = [
    Row(
        'parameters change again and again, good and bad ones',
        lasts(set_parameters, 0.002, 2.0),
        'running',
        '',
        GOES_ON,
    ),
    Row('300 instructions at once', say_many_things, 'halting', 'a new instruction', RESUMES),
    Row(
        'transitions in random order as fast as they are answered',
        storm_of_transitions,
        'halting',
        'deactivating',
        RESUMES,
        core=True,
    ),
    Row(
        'a camera sends 1000 small images per second',
        lasts(publish_images(24, 32), 0.001, 3.0),
        'running',
        '',
        GOES_ON,
    ),
    Row(
        'a camera sends 30 images of 1920 x 1080 per second',
        lasts(publish_images(1080, 1920), 1 / 30, 3.0),
        'running',
        '',
        GOES_ON,
    ),
]

COMMANDERS = [
    Row(
        'a second node of the same name is activated',
        activate_second_when_it_hears_the_first,
        'running',
        'activate failed: another publisher commands the robot',
        GOES_ON,
        core=True,
        fresh=True,
        shared_name=True,
    ),
    Row(
        'a second node of the same name is activated before it can hear the first',
        activate_second_at_once,
        'running',
        'another publisher commands the robot',
        GOES_ON,
        fresh=True,
        shared_name=True,
    ),
    Row(
        'a node stands still, another one moves, and the first comes back',
        move_second_while_first_stands_still,
        'failed',
        'another publisher commands the robot',
        LATCHES,
        fresh=True,
        shared_name=True,
    ),
    Row(
        'somebody else sends commands',
        command_the_robot_too,
        'failed',
        'another publisher commands the robot',
        HALTS,
        mend=reset,
        core=True,
    ),
    Row(
        'somebody else only advertises commands',
        advertise_commands,
        'running',
        '1 other publishers on the command topic',
        GOES_ON,
    ),
]

SIGNALS = [
    Row(
        f'{number.name} while {situation.value}',
        send_signal(number),
        '',
        '',
        DIES if number is signal.SIGKILL else LEAVES,
        situation=situation,
        parameters={'policy': 'endless'} if situation is Situation.LOADING else {},
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
    for situation in Situation
]

TABLE = {
    'Clocks': CLOCKS,
    'Stalls': STALLS,
    'Inputs': INPUTS,
    'Policy': POLICY,
    'Storms': STORMS,
    'Other commanders': COMMANDERS,
    'Signals': SIGNALS,
}
ROWS = [row for rows in TABLE.values() for row in rows]
