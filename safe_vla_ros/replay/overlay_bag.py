"""Writes what the node would have published as a recording that RViz and Foxglove open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from safe_vla_ros.runtime.diagnostics import TaskStatus, inference_statuses, reset_status
from safe_vla_ros.types import NANOSECONDS, MessageHeader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import Any

    from rosbags.interfaces import Connection

    from safe_vla_ros.replay.method_run import Step
    from safe_vla_ros.runtime.controller import Command
    from safe_vla_ros.types import UInt8Array

NODE = 'pruned_policy'
JPEG_QUALITY = 85


class OverlayBag:
    """A rosbag2 in MCAP with one node's topics per method.

    The robot's own method has the node's topics, ``/pruned_policy/...``; every other method has
    them in its own namespace, ``/<method>/pruned_policy/...``. A message is stamped like the node's
    and lies at the bag time at which the node would have published it.
    """

    def __init__(
        self, path: Path, *, own_method: str, command_frame: str, hardware_id: str
    ) -> None:
        """Begin a recording; ``path`` is a directory that does not exist yet."""
        self._store = get_typestore(Stores.ROS2_JAZZY)
        self._types = self._store.types
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._own_method = own_method
        self._command_frame = command_frame
        self._hardware_id = hardware_id

    def close(self) -> None:
        """Finish the recording."""
        self._writer.close()

    def abort(self) -> None:
        """Leave the recording unfinished, without its index."""
        self._writer.abort()

    def write_step(self, step: Step) -> None:
        """Write ``~/inference``, ``~/pruning_ratio`` and ``~/subtask_reset`` of an inference."""
        report, header = step.report, step.report.job.header
        message = self._array(header, inference_statuses(report))
        self._write(step.method, 'inference', message, step.end_s)
        record = report.outcome.record
        if record is not None:
            ratio = self._types['std_msgs/msg/Float32'](data=float(record.pruning_ratio))
            self._write(step.method, 'pruning_ratio', ratio, step.end_s)
        reset = reset_status(report)
        if reset is not None:
            self._write(step.method, 'subtask_reset', self._array(header, [reset]), step.end_s)

    def write_command(self, method: str, time_s: float, command: Command) -> None:
        """Write ``~/ee_twist`` or ``~/ee_target``, and ``~/gripper`` where it is due."""
        types = self._types
        if command.target is None:
            vector = types['geometry_msgs/msg/Vector3']
            twist = types['geometry_msgs/msg/Twist'](
                linear=vector(*command.linear_m_s.tolist()),
                angular=vector(*command.angular_rad_s.tolist()),
            )
            header = self._header(MessageHeader.at(max(0.0, time_s), self._command_frame))
            message = types['geometry_msgs/msg/TwistStamped'](header=header, twist=twist)
            self._write(method, 'ee_twist', message, time_s)
        else:
            pose = types['geometry_msgs/msg/Pose'](
                position=types['geometry_msgs/msg/Point'](*command.target.position_m.tolist()),
                orientation=types['geometry_msgs/msg/Quaternion'](
                    *command.target.quaternion_xyzw.tolist()
                ),
            )
            header = self._header(MessageHeader.at(max(0.0, time_s), self._command_frame))
            message = types['geometry_msgs/msg/PoseStamped'](header=header, pose=pose)
            self._write(method, 'ee_target', message, time_s)
        if command.gripper is not None:
            number = types['std_msgs/msg/Float64'](data=float(command.gripper))
            self._write(method, 'gripper', number, time_s)

    def write_overlay(
        self,
        step: Step,
        camera: str,
        overlay: UInt8Array,
        *,
        header: MessageHeader,
        jpeg: bytes | None,
    ) -> None:
        """Write ``~/saliency/<camera>/image_raw``, or ``.../compressed`` when a JPEG is given.

        Args:
            step: The inference that it shows.
            camera: Camera.
            overlay: uint8 [H, W, 3] RGB.
            header: Of the source image.
            jpeg: The overlay as JPEG, or None to write it raw.
        """
        name = f'saliency/{camera}/image_raw'
        if jpeg is not None:
            message = self._types['sensor_msgs/msg/CompressedImage'](
                header=self._header(header),
                format='rgb8; jpeg compressed bgr8',
                data=np.frombuffer(jpeg, np.uint8),
            )
            self._write(step.method, f'{name}/compressed', message, step.end_s)
            return
        message = image_message(self._types, self._header(header), overlay)
        self._write(step.method, name, message, step.end_s)

    def _write(self, method: str, name: str, message: Any, time_s: float) -> None:
        namespace = '' if method == self._own_method else f'/{method}'
        topic = f'{namespace}/{NODE}/{name}'
        connection = self._connections.get(topic)
        if connection is None:
            connection = self._writer.add_connection(
                topic, message.__msgtype__, typestore=self._store
            )
            self._connections[topic] = connection
        data = self._store.serialize_cdr(message, message.__msgtype__)
        self._writer.write(connection, round(time_s * 1e9), data)

    def _header(self, header: MessageHeader) -> Any:
        stamp = self._types['builtin_interfaces/msg/Time'](
            sec=header.stamp_ns // NANOSECONDS, nanosec=header.stamp_ns % NANOSECONDS
        )
        return self._types['std_msgs/msg/Header'](stamp=stamp, frame_id=header.frame_id)

    def _status(self, status: TaskStatus) -> Any:
        key_value = self._types['diagnostic_msgs/msg/KeyValue']
        return self._types['diagnostic_msgs/msg/DiagnosticStatus'](
            level=status.level,
            name=f'{NODE}: {status.task}',
            message=status.message,
            hardware_id=self._hardware_id,
            values=[key_value(key=key, value=value) for key, value in status.values.items()],
        )

    def _array(self, header: MessageHeader, statuses: Iterable[TaskStatus]) -> Any:
        return self._types['diagnostic_msgs/msg/DiagnosticArray'](
            header=self._header(MessageHeader(header.stamp_ns)),
            status=[self._status(status) for status in statuses],
        )


def image_message(types: Mapping[str, Any], header: Any, image: UInt8Array) -> Any:
    """Return an RGB image, uint8 [H, W, 3], as a ``sensor_msgs/Image``.

    Args:
        types: Message classes of a typestore, by name.
        header: A ``std_msgs/Header``.
        image: The image.
    """
    return types['sensor_msgs/msg/Image'](
        header=header,
        height=image.shape[0],
        width=image.shape[1],
        encoding='rgb8',
        is_bigendian=0,
        step=3 * image.shape[1],
        data=image.reshape(-1),
    )


def encode_jpeg(image: UInt8Array) -> bytes:
    """Return an RGB image, uint8 [H, W, 3], as a JPEG file."""
    _, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return bytes(data)
