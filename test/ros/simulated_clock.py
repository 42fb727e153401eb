"""A publisher of /clock that runs, stops and jumps as it is told."""

from __future__ import annotations

from rosgraph_msgs.msg import Clock

BEGIN_S = 100.0
STEP_S = 0.01


class SimulatedClock:
    """Simulated time that goes at a rate; a step is at most 10 ms of either time."""

    def __init__(self, robot):
        self._robot = robot
        self._publisher = robot.node.create_publisher(Clock, '/clock', 10)
        self._now_s = BEGIN_S
        self._end = None

    def run(self, rate=1.0):
        """Let simulated time go at a multiple of real time."""
        self.stop()
        self._end = self._robot.every(STEP_S / max(rate, 1.0), lambda: self._step(rate))

    def stop(self):
        if self._end is not None:
            self._end()
        self._end = None

    def jump(self, by_s):
        self._now_s += by_s

    def _step(self, rate):
        self._now_s += STEP_S * min(rate, 1.0)
        message = Clock()
        message.clock.sec, message.clock.nanosec = int(self._now_s), int(self._now_s % 1 * 1e9)
        self._publisher.publish(message)
