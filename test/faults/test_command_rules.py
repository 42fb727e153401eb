"""The recorder finds every way in which a stream of twists can be wrong, and nothing else."""

from __future__ import annotations

import pytest
from command_rules import CommandRecorder, Heard, Rules

RULES = Rules(0.25, 0.8, 1.0, 3.0)


def stream(*speeds, period_s=0.02, start_s=100.0):
    return [
        Heard(start_s + i * period_s, i * period_s, (speed, 0.0, 0.0), (0.0, 0.0, 0.0))
        for i, speed in enumerate(speeds)
    ]


def shifted(heard, by_s, *, received_too=True):
    return [
        Heard(h.stamp_s + by_s, h.received_s + (by_s if received_too else 0.0), h.linear, h.angular)
        for h in heard
    ]


RAMP = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1)
MOTION = stream(*RAMP, *reversed(RAMP))


def violations(heard, rules=RULES, **options):
    return CommandRecorder(rules, heard).violations(**options)


def test_motion_within_the_limits_is_fine():
    assert violations(MOTION) == []
    assert violations([]) == []


@pytest.mark.parametrize(
    ('heard', 'text'),
    [
        (stream(0.0, 0.02, 0.1, 0.08, 0.06, 0.04, 0.02, 0.0), 'linear velocity changes by 0.08'),
        (stream(*RAMP), 'the last command is no zero'),
        (stream(0.3, 0.3, 0.0, period_s=1.0), 'linear speed 0.3 is above the limit 0.25'),
        (stream(float('nan'), 0.0), 'linear speed nan'),
        (stream(*RAMP) + shifted(stream(0.1, 0.08, 0.06, 0.04, 0.02, 0.0), 0.4), 'motion goes on'),
    ],
)
def test_every_broken_rule_is_named(heard, text):
    assert any(text in sentence for sentence in violations(heard))


def test_after_a_stall_a_zero_comes_first_and_motion_begins_from_rest():
    assert violations(stream(*RAMP) + shifted(MOTION, 0.4)) == []
    hasty = shifted(stream(0.0, 0.1, 0.0), 0.4)
    assert any('changes by 0.1' in text for text in violations(stream(*RAMP) + hasty))


def test_at_the_end_of_what_the_robot_holds_a_zero_is_as_good_as_going_on():
    assert violations(stream(*RAMP) + shifted(stream(0.0), 0.205)) == []
    assert violations(stream(*RAMP) + shifted(stream(*reversed(RAMP)), 0.205)) == []


def test_robot_that_never_stops_by_itself_is_braked_from_its_last_speed():
    rules = Rules(0.25, 0.8, 1.0, 3.0, robot_command_timeout_s=0.0)
    assert (
        violations(stream(*RAMP) + shifted(stream(0.08, 0.06, 0.04, 0.02, 0.0), 0.4), rules) == []
    )


def test_a_jump_of_the_stamps_is_judged_by_steady_time():
    after = shifted(stream(0.08, 0.06, 0.04, 0.02, 0.0), -20.0, received_too=False)
    after = [Heard(h.stamp_s, h.received_s + 0.12, h.linear, h.angular) for h in after]
    assert violations(stream(*RAMP) + after) == []


def test_a_killed_node_may_end_in_motion():
    assert violations(stream(*RAMP), ends_at_rest=False) == []


def test_a_command_where_silence_is_due_is_named():
    recorder = CommandRecorder(RULES, list(MOTION))
    recorder.hush(0.13)
    recorder.unhush(0.17)
    assert any('2 commands where silence was due' in text for text in recorder.violations())
    quiet = CommandRecorder(RULES, list(MOTION))
    quiet.hush(0.5)
    assert quiet.violations() == []


def test_a_clock_that_leaps_ahead_may_stop_the_arm_at_once_but_not_move_it():
    ahead = shifted(stream(0.0, 0.0), 20.0, received_too=False)
    ahead = [Heard(h.stamp_s, h.received_s + 0.12, h.linear, h.angular) for h in ahead]
    assert violations(stream(*RAMP) + ahead) == []
    hasty = [Heard(h.stamp_s, h.received_s, (0.2, 0.0, 0.0), h.angular) for h in ahead]
    assert any('changes by 0.1' in text for text in violations(stream(*RAMP) + hasty))


def test_simulated_time_that_stands_still_leaves_braking_to_real_time():
    rules = Rules(0.25, 0.8, 1.0, 3.0, simulated=True)
    stamp_s = stream(*RAMP)[-1].stamp_s
    braking = [
        Heard(stamp_s, 0.4 + 0.02 * i, (speed, 0.0, 0.0), (0.0, 0.0, 0.0))
        for i, speed in enumerate((0.08, 0.06, 0.04, 0.02, 0.0))
    ]
    assert violations(stream(*RAMP) + braking, rules) == []
    slow = [Heard(h.stamp_s / 10, h.received_s, h.linear, h.angular) for h in MOTION]
    assert any('changes by 0.02' in text for text in violations(slow, rules))
    assert violations(slow[5:], rules) == []
    hasty = [braking[0], Heard(stamp_s, 0.42, (0.0,) * 3, (0.0,) * 3)]
    assert any('changes by 0.08' in text for text in violations(stream(*RAMP) + hasty, rules))


def test_the_largest_speeds_and_changes_are_told():
    largest = CommandRecorder(RULES, stream(0.0, 0.02, 0.06, 0.04, 0.0)).largest()
    assert largest.linear_speed == pytest.approx(0.06)
    assert largest.linear_accel == pytest.approx(2.0)
    assert (largest.angular_speed, largest.angular_accel) == (0.0, 0.0)
