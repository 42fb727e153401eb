"""The node `sim_robot`: a MetaWorld arm on MuJoCo that behaves like a robot on ROS 2 topics."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from safe_vla_ros.errors import ObservationError, ParameterError
from safe_vla_ros.ros import sim_robot_messages as messages
from safe_vla_ros.ros.message_building import status_message, time_message
from safe_vla_ros.ros.sim_robot_parameters import SIM_PARAMETERS, declare, loop_settings
from safe_vla_ros.sim.arm import SimulatedArm
from safe_vla_ros.sim.camera_thread import CameraThread
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.robot_loop import EpisodeEvent, RobotLoop, RobotState
from safe_vla_ros.sim.tasks import TASKS

if TYPE_CHECKING:
    from safe_vla_ros.types import UInt8Array

AUTOPLAY_PAUSE_S = 2.0
THROTTLE_S = 2.0


class SimRobot(Node):
    """Publishes cameras and states, executes twists and gripper openings, runs episodes."""

    def __init__(self, **options: Any) -> None:
        """Load the first task and start moving time.

        Args:
            options: Of ``rclpy.node.Node``.

        Raises:
            ParameterError: A parameter is out of range.
            RuntimeError: The cameras cannot be rendered.
        """
        super().__init__('sim_robot', **options)
        values = declare(self)
        settings = loop_settings(values)
        self._settings = settings
        self._base_frame = str(values['base_frame'])
        self._autoplay = bool(values['autoplay'])
        self._arm = SimulatedArm(
            values['task'], seed=values['seed'], real_time_factor=settings.arm_factor
        )
        self._cameras = CameraThread(self._publish_image)
        self._loop = RobotLoop(self._arm, self, settings)
        self._create_publishers()
        self._create_inputs()
        self._instruction_readers = 0
        self._last_complaint = ('', 0.0)
        self._before = (time.monotonic(), 0, 0, 0)
        self._cameras.start()
        if not self._cameras.prepare(self._arm):
            self._cameras.stop()
            msg = f'the cameras cannot be rendered: {self._cameras.error}'
            raise RuntimeError(msg)
        self._loop.start()
        self.get_logger().info(
            f'ready: {", ".join(CAMERA_SIZES_PX)} at {settings.camera_rate_hz:g} Hz, states at '
            f'{settings.state_rate_hz:g} Hz, real_time_factor {settings.real_time_factor:g}'
        )

    @property
    def failure(self) -> Exception | None:
        """What ended physics or rendering, if something did."""
        return self._loop.error or self._cameras.error

    def close(self) -> None:
        """Stop time and free the GL contexts."""
        self._loop.stop()
        self._cameras.stop()

    # RobotListener, called in the physics thread

    def on_clock(self, now_s: float) -> None:
        """Publish simulated time."""
        self._clock_publisher.publish(Clock(clock=time_message(now_s)))

    def on_state(self, state: RobotState) -> None:
        """Publish pose and joints."""
        self._pose_publisher.publish(messages.ee_pose_message(state, self._base_frame))
        self._joint_publisher.publish(messages.joint_message(state))

    def on_capture(self, arm: SimulatedArm, stamp_s: float) -> None:
        """Have a picture of this moment rendered."""
        self._cameras.capture(arm, stamp_s)

    def on_episode(self, event: EpisodeEvent) -> None:
        """Publish the event and, with a new episode, its instruction."""
        self._episode_publisher.publish(
            messages.episode_message(event, self.get_fully_qualified_name())
        )
        if event.kind == 'started':
            self._instruction_publisher.publish(String(data=event.instruction))
        self.get_logger().info(
            f'episode {event.episode} ({event.task}, seed {event.seed}): {event.kind}'
            + (f' after {event.elapsed_s:.2f} s' if event.kind != 'started' else '')
        )

    # Subscriptions

    def _on_twist(self, message: TwistStamped) -> None:
        try:
            velocity = messages.linear_velocity(message, self._base_frame)
        except ObservationError as error:
            self._complain(str(error))
            return
        if messages.turns(message):
            self.get_logger().warning(
                'angular velocities are ignored: this arm keeps its orientation',
                throttle_duration_sec=THROTTLE_S,
            )
        self._loop.command_twist(velocity)

    def _on_gripper(self, message: Float64) -> None:
        if not 0.0 <= message.data <= 1.0:
            self._complain(
                f'gripper command ignored: got {message.data}, must be 0 (closed) to 1 (open)'
            )
            return
        self._loop.command_gripper(message.data)

    def _complain(self, complaint: str) -> None:
        """Log an error, the same one again only after a while."""
        last, last_s = self._last_complaint
        now_s = time.monotonic()
        if complaint != last or now_s - last_s >= THROTTLE_S:
            self._last_complaint = (complaint, now_s)
            self.get_logger().error(complaint)

    def _on_start_episode(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success = self._start_episode()
        event = self._loop.episode
        if response.success and event is not None:
            response.message = f'episode {event.episode}: {event.task}, seed {event.seed}'
        else:
            response.message = f'no episode could be started: {self.failure or "time ran out"}'
        return response

    def _start_episode(self) -> bool:
        task = str(self.get_parameter('task').value)
        seed = int(self.get_parameter('seed').value)
        if self._arm.task.name != task:
            arm = SimulatedArm(task, seed=seed, real_time_factor=self._settings.arm_factor)
            if not self._cameras.prepare(arm):
                return False
            self._arm = arm
        return self._loop.start_episode(self._arm, seed)

    def _on_parameters(self, parameters: list[Any]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.name in SIM_PARAMETERS:
                    SIM_PARAMETERS[parameter.name].check(parameter.value)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # Timers

    def _greet_new_readers(self) -> None:
        readers = self._instruction_publisher.get_subscription_count()
        event = self._loop.episode
        if readers > self._instruction_readers and event is not None and event.kind == 'started':
            self._instruction_publisher.publish(String(data=event.instruction))
        self._instruction_readers = readers

    def _continue_playing(self) -> None:
        event = self._loop.episode
        if event is None:
            self._start_episode()
        elif event.kind != 'started' and self._loop.now_s - event.stamp_s >= AUTOPLAY_PAUSE_S:
            names = list(TASKS)
            following = names[(names.index(event.task) + 1) % len(names)]
            self.set_parameters(
                [
                    rclpy.parameter.Parameter('task', value=following),
                    rclpy.parameter.Parameter('seed', value=event.seed + 1),
                ]
            )
            self._start_episode()

    def _publish_diagnostics(self) -> None:
        then_s, steps_before, captures_before, slips_before = self._before
        now_s, steps, captures = time.monotonic(), self._loop.steps, self._cameras.captures
        slips = self._loop.slips
        self._before = (now_s, steps, captures, slips)
        event = self._loop.episode
        values = {
            'physics_hz': f'{(steps - steps_before) / (now_s - then_s):.1f}',
            'camera_hz': f'{(captures - captures_before) / (now_s - then_s):.1f}',
            'late_steps': f'{self._loop.late_steps}',
            'time_slips': f'{slips}',
            'captures_dropped': f'{self._cameras.dropped}',
            'render_ms': f'{self._cameras.last_render_ms:.1f}',
            'episode': f'{event.episode}' if event else '0',
            'episode_state': event.kind if event else 'none',
        }
        slipped = slips > slips_before
        status = status_message(
            f'{self.get_fully_qualified_name()}: robot',
            1 if slipped else 0,
            'slower than real time' if slipped else 'running',
            messages.HARDWARE_ID,
            values,
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = time_message(self._loop.now_s)
        self._diagnostics_publisher.publish(message)

    # Wiring

    def _publish_image(self, camera: str, image: UInt8Array, stamp_s: float) -> None:
        message = messages.camera_message(image, stamp_s, f'{camera}_optical_frame')
        self._image_publishers[camera].publish(message)

    def _create_publishers(self) -> None:
        self._image_publishers = {
            camera: self.create_publisher(Image, f'{camera}/image_raw', 1)
            for camera in CAMERA_SIZES_PX
        }
        self._pose_publisher = self.create_publisher(PoseStamped, 'ee_pose', 1)
        self._joint_publisher = self.create_publisher(JointState, 'joint_states', 1)
        self._instruction_publisher = self.create_publisher(String, 'instruction', 1)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._episode_publisher = self.create_publisher(DiagnosticArray, '~/episode', latched)
        self._diagnostics_publisher = self.create_publisher(DiagnosticArray, '/diagnostics', 1)
        if self._settings.publish_clock:
            self._clock_publisher = self.create_publisher(Clock, '/clock', 1)

    def _create_inputs(self) -> None:
        self.create_subscription(TwistStamped, 'ee_twist', self._on_twist, 1)
        self.create_subscription(Float64, 'gripper', self._on_gripper, 1)
        self.create_service(Trigger, '~/start_episode', self._on_start_episode)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(0.2, self._greet_new_readers)
        self.create_timer(1.0, self._publish_diagnostics)
        if self._autoplay:
            self.create_timer(0.2, self._continue_playing)


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is told to stop.

    Returns:
        Exit status: 0 when it was told to stop, 1 when it could not start or run.
    """
    rclpy.init(args=arguments)
    node: SimRobot | None = None
    try:
        node = SimRobot()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and node.failure is None:
            executor.spin_once(timeout_sec=0.5)
        if node.failure is not None and rclpy.ok():
            node.get_logger().fatal(f'{type(node.failure).__name__}: {node.failure}')
            return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ParameterError, RuntimeError) as error:
        rclpy.logging.get_logger('sim_robot').fatal(str(error))
        return 1
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
