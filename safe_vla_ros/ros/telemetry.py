"""What is published once per inference."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Path
from std_msgs.msg import Float32

from safe_vla_ros.ros.message_building import path_message, stamp_message, status_message
from safe_vla_ros.runtime import diagnostics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from builtin_interfaces.msg import Time
    from rclpy.node import Node

    from safe_vla_ros.ros.policy_topics import PolicyTopics
    from safe_vla_ros.runtime import InferenceReport, Pose
    from safe_vla_ros.types import PruningRecord

THROTTLE_S = 2.0


class Telemetry:
    """Publishes what became of every inference, and counts what pruning did."""

    def __init__(
        self,
        node: Node,
        topics: PolicyTopics,
        *,
        name: str,
        hardware_id: str,
        frame_id: str,
    ) -> None:
        """Advertise the topics.

        Args:
            node: Logs, and gives the time.
            topics: Makes the publishers.
            name: The node's name in the statuses.
            hardware_id: Of the statuses.
            frame_id: Of the planned path.
        """
        self._node = node
        self._name, self._hardware_id, self._frame = name, hardware_id, frame_id
        self._ratio = topics.advertise(Float32, '~/pruning_ratio', 10)
        self._resets = topics.advertise(DiagnosticArray, '~/subtask_reset', 10)
        self._inferences = topics.advertise(DiagnosticArray, '~/inference', 10)
        self._path = topics.advertise(Path, '~/planned_path')
        self._lock = threading.Lock()
        self._counts = diagnostics.PruningCounts()
        self._report: InferenceReport | None = None
        self._record: PruningRecord | None = None

    def publish(self, report: InferenceReport) -> None:
        """Publish one inference; in the inference thread."""
        record = report.record
        with self._lock:
            self._report = report
            if record is not None:
                self._record = record
                self._counts.add(record, report.episode)
        stamp = stamp_message(report.header)
        self._inferences.publish(self._message(diagnostics.inference_statuses(report), stamp))
        if record is not None:
            self._ratio.publish(Float32(data=record.pruning_ratio))
        reset = diagnostics.reset_status(report)
        if reset is not None:
            self._resets.publish(self._message([reset], stamp))
        if report.error:
            logger = self._node.get_logger()
            logger.error(f'inference failed: {report.error}', throttle_duration_sec=THROTTLE_S)
            if report.details:
                logger.debug(report.details)

    def publish_path(self, poses: list[Pose]) -> None:
        """Publish the rest of the plan; an empty one removes it from displays."""
        if self._path.get_subscription_count():
            stamp = self._node.get_clock().now().to_msg()
            self._path.publish(path_message(poses, stamp, self._frame))

    def inference_values(self) -> dict[str, str]:
        """Return the keys of the newest inference; empty before the first."""
        with self._lock:
            report = self._report
        return diagnostics.report_values(report) if report is not None else {}

    def pruning_values(self) -> dict[str, str]:
        """Return the keys of the newest pruning record and the counts."""
        with self._lock:
            record, counts = self._record, self._counts.values()
        return {**(diagnostics.record_values(record) if record is not None else {}), **counts}

    def _message(self, statuses: Iterable[diagnostics.TaskStatus], stamp: Time) -> DiagnosticArray:
        message = DiagnosticArray()
        message.header.stamp = stamp
        message.status = [
            status_message(f'{self._name}: {task}', level, text, self._hardware_id, values)
            for task, level, text, values in statuses
        ]
        return message
