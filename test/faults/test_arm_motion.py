"""The robot's model comes to rest where its commands or its watchdog say so."""

from __future__ import annotations

import math

import pytest
from arm_motion import IntegratedPosition, stop_after
from command_rules import Heard


def commands(*speeds, period_s=0.02):
    return [
        Heard(i * period_s, i * period_s, (speed, 0.0, 0.0), (0.0,) * 3)
        for i, speed in enumerate(speeds)
    ]


def test_braking_ends_with_the_first_zero():
    stop = stop_after(commands(0.2, 0.2, 0.1, 0.0, 0.0), 0.03, math.inf)
    assert stop.time_s == pytest.approx(0.03)
    assert stop.distance_m == pytest.approx(0.2 * 0.01 + 0.1 * 0.02)


def test_watchdog_ends_a_motion_that_nobody_commands_any_more():
    stop = stop_after(commands(0.2, 0.2), 0.03, 0.1)
    assert stop.time_s == pytest.approx(0.09)
    assert stop.distance_m == pytest.approx(0.018)


def test_watchdog_ends_it_although_commands_come_later():
    late = [*commands(0.2), Heard(0.5, 0.5, (0.2, 0.0, 0.0), (0.0,) * 3)]
    assert stop_after(late, 0.0, 0.1).time_s == pytest.approx(0.1)


def test_without_a_watchdog_it_never_ends():
    assert stop_after(commands(0.2, 0.2), 0.03, math.inf).distance_m == math.inf


def test_an_arm_at_rest_tells_nothing():
    with pytest.raises(ValueError, match='rested before'):
        stop_after(commands(0.0, 0.0), 0.03, math.inf)


def test_position_follows_the_velocity_until_the_watchdog():
    position = IntegratedPosition((1.0, 0.0, 0.0), 0.1)
    position.take((0.2, 0.0, 0.0), 10.0)
    assert position.at(10.05) == pytest.approx((1.01, 0.0, 0.0))
    assert position.at(12.0) == pytest.approx((1.02, 0.0, 0.0))
    position.take((0.0, -0.1, 0.0), 12.0)
    assert position.at(12.05) == pytest.approx((1.02, -0.005, 0.0))
