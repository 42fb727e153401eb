import numpy as np
import pytest

from safe_vla_ros.replay.command_metrics import Agreement, Smoothness
from safe_vla_ros.replay.metrics import MetricSums
from safe_vla_ros.runtime.controller import Command

ZERO = np.zeros(3)


def command(x=0.0, gripper=None):
    return Command(np.array([x, 0.0, 0.0]), ZERO, None, gripper)


def test_constant_velocity_is_perfectly_smooth():
    metrics, smoothness = MetricSums(), Smoothness(0.02)
    for _ in range(10):
        smoothness.add(command(0.1), metrics)
    assert metrics.get('acceleration_m_s2').high == 0
    assert metrics.get('jerk_m_s3').high == 0
    assert metrics.counts['reversals'] == 0
    assert metrics.counts['motion_s'] == pytest.approx(0.2)


def test_a_step_and_a_reversal_are_seen():
    metrics, smoothness = MetricSums(), Smoothness(0.02)
    for speed in (0.1, 0.1, -0.1):
        smoothness.add(command(speed), metrics)
    assert metrics.get('acceleration_m_s2').high == pytest.approx(10)
    assert metrics.get('jerk_m_s3').high == pytest.approx(500)
    assert metrics.counts['reversals'] == 1


def test_silence_separates_motions():
    metrics, smoothness = MetricSums(), Smoothness(0.02)
    for entry in (command(0.1), None, command(-0.1)):
        smoothness.add(entry, metrics)
    assert metrics.get('acceleration_m_s2').count == 0
    assert metrics.counts['reversals'] == 0


def test_agreement_compares_speed_direction_and_gripper():
    metrics, agreement = MetricSums(), Agreement()
    agreement.record_twist(10.0, np.array([0.0, 0.1, 0.0]), ZERO)
    agreement.record_gripper(1.0)
    agreement.compare(10.01, command(0.1, gripper=0.25), metrics)
    assert metrics.get('recorded/linear_m_s').mean == pytest.approx(np.hypot(0.1, 0.1))
    assert metrics.get('recorded/direction').mean == pytest.approx(0)
    assert metrics.get('recorded/gripper').mean == pytest.approx(0.75)
    assert metrics.counts['recorded/ticks'] == 1


def test_old_recorded_commands_are_not_compared():
    metrics, agreement = MetricSums(), Agreement()
    agreement.record_twist(10.0, np.array([0.1, 0.0, 0.0]), ZERO)
    agreement.compare(10.3, command(0.1), metrics)
    assert not metrics.counts


def test_ticks_in_which_the_recorded_arm_stands_are_counted_apart():
    metrics, agreement = MetricSums(), Agreement()
    agreement.record_twist(10.0, ZERO, ZERO)
    for moving in (command(0.1), command(0.0), None):
        agreement.compare(10.0, moving, metrics)
    assert metrics.counts['recorded/only_replayed'] == 1
    assert metrics.counts['recorded/ticks'] == 0


def test_a_turn_on_the_spot_has_no_direction():
    metrics, agreement = MetricSums(), Agreement()
    agreement.record_twist(10.0, ZERO, np.array([0.0, 0.0, 0.5]))
    agreement.compare(10.0, command(0.1), metrics)
    assert metrics.get('recorded/angular_rad_s').mean == pytest.approx(0.5)
    assert metrics.get('recorded/direction').count == 0


def test_motion_in_the_bag_only_is_counted():
    metrics, agreement = MetricSums(), Agreement()
    agreement.record_twist(10.0, np.array([0.1, 0.0, 0.0]), ZERO)
    agreement.compare(10.0, None, metrics)
    assert metrics.counts['recorded/only_recorded'] == 1
