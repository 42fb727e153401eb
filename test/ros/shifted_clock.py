"""A system clock that a test sets for one process, without root and without libraries."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration

NUMBER = struct.Struct('<d')


class ShiftedClock:
    """The test's side: how far the process's system time is ahead of the true one, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.write_bytes(NUMBER.pack(0.0))
        self.offset_s = 0.0

    def set(self, offset_s: float) -> None:
        """Set the process's system clock, relative to the true one, seconds."""
        self.offset_s = offset_s
        with self._path.open('r+b') as file:
            file.write(NUMBER.pack(offset_s))


def shift_system_time(path: Path) -> None:
    """Add the offset in a file to every reading of system time in this process, from now on.

    Only readings are shifted: the machine's clock, timers and DDS are left alone.
    """
    with path.open('rb') as file:
        offset = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    true_now = Clock.now

    def now(clock):
        time = true_now(clock)
        if clock.clock_type is not ClockType.ROS_TIME or clock.ros_time_is_active:
            return time
        return time + Duration(seconds=NUMBER.unpack_from(offset)[0])

    Clock.now = now
