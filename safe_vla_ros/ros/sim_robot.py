"""The node `sim_robot`: LIBERO's Panda on MuJoCo, which behaves like a robot on ROS 2 topics."""

from __future__ import annotations

import os
import sys
import threading
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
from safe_vla_ros.ros.background_service import answer_in_background
from safe_vla_ros.ros.message_building import status_message, time_message
from safe_vla_ros.ros.policy_presence import PolicyPresence
from safe_vla_ros.ros.sim_robot_parameters import SIM_PARAMETERS, check, declare, loop_settings
from safe_vla_ros.sim.arm import SimulatedPanda
from safe_vla_ros.sim.camera_thread import CameraThread
from safe_vla_ros.sim.episode_starter import EpisodeStarter, StartError
from safe_vla_ros.sim.rendering import CAMERA_SIZES_PX
from safe_vla_ros.sim.robot_loop import EpisodeEvent, RobotLoop, RobotState
from safe_vla_ros.sim.tasks import NUM_INIT_STATES, TASKS, split_name, task_names

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.types import UInt8Array

AUTOPLAY_PAUSE_S = 2.0
THROTTLE_S = 2.0
PATIENCE_S = 0.5
"""How long each thread may take to end when the node leaves."""


class SimRobot(Node):
    """Publishes cameras and states, executes twists and gripper openings, runs episodes."""

    def __init__(self, **options: Any) -> None:
        """Start moving time; the first scene loads in a thread of its own.

        Args:
            options: Of ``rclpy.node.Node``.

        Raises:
            ParameterError: A parameter is out of range.
        """
        super().__init__('sim_robot', **options)
        values = declare(self)
        self._settings = loop_settings(values)
        self._base_frame = str(values['base_frame'])
        self._plain_objects = bool(values['plain_objects'])
        self._cameras = CameraThread(self._publish_image)
        self._loop = RobotLoop(self, self._settings)
        self._starter = EpisodeStarter(self._loop, self._cameras, make_arm=self._load)
        self._broken: Exception | None = None
        self._telling = threading.Lock()
        self._untold: EpisodeEvent | None = None
        self._instruction = ''
        self._change: threading.Thread | None = None
        self._instruction_readers = 0
        self._last_complaint = ('', 0.0)
        self._last_wait = ''
        self._before = (time.monotonic(), 0, 0, 0)
        self._create_publishers()
        self._create_inputs()
        if values['autoplay']:
            self._policy = PolicyPresence(self, self._twists, self._instruction_publisher)
            self.create_timer(0.2, self._continue_playing)
        self._cameras.start()
        self._loop.start()
        self._in_background(self._show_first_scene)

    @property
    def failure(self) -> Exception | None:
        """What ended physics or rendering, or what kept a scene from loading."""
        return self._loop.error or self._cameras.error or self._broken

    def close(self) -> bool:
        """Stop time and free the GL context.

        Returns:
            Whether everything has ended; a scene that loads cannot be stopped.
        """
        ended = [self._loop.stop(PATIENCE_S), self._cameras.stop(PATIENCE_S)]
        return all(ended) and not self._starter.busy

    # RobotListener, called in the physics thread

    def on_clock(self, now_s: float) -> None:
        """Publish simulated time."""
        self._clock_publisher.publish(Clock(clock=time_message(now_s)))

    def on_state(self, state: RobotState) -> None:
        """Publish pose and joints."""
        self._pose_publisher.publish(messages.ee_pose_message(state, self._base_frame))
        self._joint_publisher.publish(messages.joint_message(state))

    def on_capture(self, arm: SimulatedPanda, stamp_s: float) -> None:
        """Have a picture of this moment rendered."""
        self._cameras.capture(arm, stamp_s)

    def on_episode(self, event: EpisodeEvent) -> None:
        """Publish the event; an end takes the instruction back, so that the policy halts.

        A start tells it when the pictures of the new scene are out: see ``_publish_image``.
        """
        self._episode_publisher.publish(
            messages.episode_message(event, self.get_fully_qualified_name())
        )
        with self._telling:
            self._untold = event if event.kind == 'started' else None
            if self._untold is None:
                self._tell('')
        placed = f'seed {event.seed}'
        if event.init_state is not None:
            placed += f', initial state {event.init_state}'
        self.get_logger().info(
            f'episode {event.episode} ({event.task}, {placed}): {event.kind}'
            + (f' after {event.elapsed_s:.2f} s' if event.kind != 'started' else '')
        )

    # Subscriptions

    def _on_twist(self, message: TwistStamped) -> None:
        try:
            linear, angular = messages.velocities(message, self._base_frame)
        except ObservationError as error:
            self._complain(str(error))
            return
        self._loop.command_twist(linear, angular)

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
        """Begin an episode; runs in a thread of its own."""
        try:
            event = self._start_episode()
        except StartError as error:
            response.message = str(error)
            return response
        except Exception as error:
            self._broken = error
            response.message = f'{type(error).__name__}: {error}'
            return response
        response.success = True
        response.message = f'episode {event.episode}: {event.task}, seed {event.seed}'
        return response

    def _start_episode(self) -> EpisodeEvent:
        return self._starter.start(**self._wanted_scene())

    def _load(self, task: str, *, seed: int, init_state: int | None) -> SimulatedPanda:
        self.get_logger().info(f'loading the scene of {task}')
        return SimulatedPanda(
            task, seed=seed, init_state=init_state, plain_objects=self._plain_objects
        )

    def _show_first_scene(self) -> None:
        self._starter.show(**self._wanted_scene())
        settings = self._settings
        self.get_logger().info(
            f'ready: {", ".join(CAMERA_SIZES_PX)} at {settings.camera_rate_hz:g} Hz, states at '
            f'{settings.state_rate_hz:g} Hz, real_time_factor {settings.real_time_factor:g}'
        )

    def _wanted_scene(self) -> dict[str, Any]:
        task, seed, init_state = (
            self.get_parameter(name).value for name in ('task', 'seed', 'init_state')
        )
        return {'task': task, 'seed': seed, 'init_state': None if init_state < 0 else init_state}

    def _in_background(self, change: Callable[[], object]) -> None:
        """Change the scene in a thread of its own, which cannot be stopped."""

        def run() -> None:
            try:
                change()
            except StartError as error:
                self._complain(str(error))
            except Exception as error:
                self._broken = error

        self._change = threading.Thread(target=run, name='scene', daemon=True)
        self._change.start()

    def _on_parameters(self, parameters: list[Any]) -> SetParametersResult:
        try:
            for parameter in parameters:
                if parameter.name in SIM_PARAMETERS:
                    check(parameter.name, parameter.value)
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    # Timers

    def _greet_new_readers(self) -> None:
        readers = self._instruction_publisher.get_subscription_count()
        if readers > self._instruction_readers and self._instruction:
            self._tell(self._instruction)
        self._instruction_readers = readers

    def _continue_playing(self) -> None:
        event = self._loop.episode
        changing = self._starter.busy or (self._change is not None and self._change.is_alive())
        if changing or (event is not None and event.kind == 'started'):
            return
        if event is not None and self._loop.now_s - event.stamp_s < AUTOPLAY_PAUSE_S:
            return
        missing = self._policy.missing()
        if missing:
            if missing != self._last_wait:
                self.get_logger().info(f'the next episode waits for a policy: {missing}')
            self._last_wait = missing
            return
        self._last_wait = ''
        if event is not None:
            self.set_parameters(_following(event))
        self._in_background(self._start_episode)

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
        """Publish a picture; the instruction follows the first ones of an episode.

        A policy that hears the instruction can then see the scene that it is meant for.
        """
        message = messages.camera_message(image, stamp_s, f'{camera}_optical_frame')
        self._image_publishers[camera].publish(message)
        if camera != tuple(CAMERA_SIZES_PX)[-1]:
            return
        with self._telling:
            event = self._untold
            if event is not None and stamp_s >= event.stamp_s:
                self._untold = None
                self._tell(event.instruction)

    def _tell(self, instruction: str) -> None:
        self._instruction = instruction
        self._instruction_publisher.publish(String(data=instruction))

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
        self._twists = self.create_subscription(TwistStamped, 'ee_twist', self._on_twist, 1)
        self.create_subscription(Float64, 'gripper', self._on_gripper, 1)
        start = self.create_service(Trigger, '~/start_episode', self._on_start_episode)
        answer_in_background(self, start)
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(0.2, self._greet_new_readers)
        self.create_timer(1.0, self._publish_diagnostics)


def _following(event: EpisodeEvent) -> list[rclpy.parameter.Parameter]:
    """Return the parameters of the next episode: another task and placement."""
    suite, _, _ = split_name(event.task)
    names = TASKS if event.task in TASKS else task_names(suite)
    values: dict[str, Any] = {
        'task': names[(names.index(event.task) + 1) % len(names)],
        'seed': event.seed + 1,
    }
    if event.init_state is not None:
        values |= {'seed': event.seed, 'init_state': (event.init_state + 1) % NUM_INIT_STATES}
    return [rclpy.parameter.Parameter(name, value=value) for name, value in values.items()]


def main(arguments: list[str] | None = None) -> int:
    """Run the node until it is told to stop.

    Returns:
        Exit status: 0 when it was told to stop, 1 when it could not start or run.
    """
    rclpy.init(args=arguments)
    node: SimRobot | None = None
    status, ended = 0, True
    try:
        node = SimRobot()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while rclpy.ok() and node.failure is None:
            executor.spin_once(timeout_sec=0.5)
        if node.failure is not None and rclpy.ok():
            node.get_logger().fatal(f'{type(node.failure).__name__}: {node.failure}')
            status = 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ParameterError as error:
        rclpy.logging.get_logger('sim_robot').fatal(str(error))
        status = 1
    finally:
        if node is not None:
            ended = node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    if not ended:
        # A scene that loads holds the process for seconds, and nothing of it is needed any more.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == '__main__':
    sys.exit(main())
