"""The lifecycle node `pruned_policy`: connects parameters, policy and topics to its transitions."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.garbage import free_memory, spare_what_exists
from safe_vla_ros.ros.background_service import answer_in_background
from safe_vla_ros.ros.configured_policy import INACTIVE, ConfiguredPolicy
from safe_vla_ros.ros.control_loop import make_companion
from safe_vla_ros.ros.loading import Loader
from safe_vla_ros.ros.parameters import NodeParameters
from safe_vla_ros.ros.policy_source import PolicySource, RegisteredPolicies
from safe_vla_ros.ros.pose_from_tf import require_tf2
from safe_vla_ros.ros.status import Status
from safe_vla_ros.runtime import RuntimeState, StateName

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread

    from rcl_interfaces.msg import ListParametersResult

    from safe_vla_ros.runtime.parameters import Resolved

    ChangeStateCallback = Callable[
        [ChangeState.Request, ChangeState.Response], ChangeState.Response
    ]

UNCONFIGURED = RuntimeState(StateName.WAITING, 'the node is not configured')
INFERENCE_PATIENCE_S = 120.0
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PrunedPolicy(LifecycleNode):
    """Runs a policy with pruned visual tokens and streams end-effector commands."""

    def __init__(self, *, policies: PolicySource | None = None, **options: Any) -> None:
        """Declare parameters and advertise what exists in every state.

        Args:
            policies: Where policies come from; this package's when not given.
            options: Of ``rclpy.lifecycle.LifecycleNode``.
        """
        # Before rclpy declares parameters of its own. Transitions and services set in two threads.
        self._setting = threading.RLock()
        super().__init__('pruned_policy', **options)
        self._policies = policies or RegisteredPolicies()
        self._configured: ConfiguredPolicy | None = None
        self._leaving = False
        self._companion = make_companion(self)
        self._last_inference: Thread | None = None
        self._node_parameters = NodeParameters(self, self._apply, self._setting)
        self._status = Status(self, self._hardware_id, lambda: self._configured)
        self._status.publish_state(UNCONFIGURED)
        self._loader = Loader(
            self._policies, self.get_logger(), self._status.publish_state, lambda: self._leaving
        )
        self.add_on_set_parameters_callback(self._check_time_source)
        # Loading takes minutes, a halt seconds; meanwhile the node must answer and tell how it is.
        for service in [s for s in self.services if s.srv_type is ChangeState]:
            service.callback = self._answering(service.callback)
            answer_in_background(self, service)
        self.create_service(Trigger, '~/reset_episode', self._on_reset_episode)
        self.create_service(SetBool, '~/pause', self._on_pause)
        self._node_parameters.tell()

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read what the policy says, resolve the parameters, load, warm up, subscribe."""
        result = self._transition('configure', lambda: self._configure(state))
        if result is not SUCCESS:
            free_memory()
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to infer and to command."""
        return self._transition('activate', lambda: self._activate(state))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Halt while the publishers are active, then be silent."""
        return self._transition('deactivate', lambda: self._deactivate(state))

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy and end its topics."""
        return self._transition('cleanup', self._release)

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Halt and free everything."""
        return self._transition('shutdown', self._release)

    def on_error(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Halt and free everything, back to unconfigured."""
        return self._transition('recover', self._release)

    def halt(self) -> None:
        """Halt now, from any thread; no activation is accepted any more."""
        self._leaving = True
        configured = self._configured
        if configured is not None:
            configured.halt(leaving=True)

    def leave(self) -> None:
        """Halt, and end the threads of inference and overlays."""
        self.halt()
        configured = self._configured
        if configured is not None:
            configured.deactivate()

    def destroy_node(self) -> None:
        """End the node and its companion."""
        self._companion.destroy_node()
        super().destroy_node()

    def set_parameters_atomically(self, parameter_list: list[Any]) -> SetParametersResult:
        """Set parameters whole or not at all, refusing in a sentence that names the parameter."""
        with self._setting:
            result = super().set_parameters_atomically(parameter_list)
            if not result.successful:
                result.reason = self._node_parameters.explain(parameter_list) or result.reason
        return result

    def list_parameters(self, prefixes: list[str], depth: int) -> ListParametersResult:
        """List the parameters that are set; to get one that is not would fail for all of them."""
        result = super().list_parameters(prefixes, depth)
        result.names = [name for name in result.names if self._node_parameters.is_set(name)]
        return result

    def _configure(self, state: LifecycleState) -> None:
        self._wait_for_last_inference()
        parameters = self._node_parameters
        with parameters.held():
            try:
                spec = self._loader.read_spec(parameters.policy)
                resolved = parameters.configure(spec, self._policies.pruner_names())
                if resolved.node.ee_frame:
                    require_tf2(resolved.node.ee_frame)
                policy = self._loader.load(parameters.policy, spec, resolved)
                self._configured = ConfiguredPolicy(
                    self,
                    policy,
                    resolved,
                    companion=self._companion,
                    publish_state=self._status.publish_state,
                    name=self._status.name,
                )
            except BaseException:
                parameters.release()
                if not self._leaving:
                    self._status.publish_state(UNCONFIGURED)
                raise
        super().on_configure(state)
        spare_what_exists()
        self._status.publish_state(INACTIVE)
        self.get_logger().info(
            f'policy {spec.name} ({spec.kind}) is ready: cameras '
            f'{", ".join(resolved.policy.cameras)}; {resolved.control.execute_steps} of '
            f'{spec.chunk_size} actions of {resolved.control.action_period_s:g} s; pruning '
            f'{resolved.pruning.method}, keep ratio {resolved.pruning.keep_ratio:g}'
        )

    def _wait_for_last_inference(self) -> None:
        """Let the policy before go: two at once may not fit into memory."""
        thread, self._last_inference = self._last_inference, None
        if thread is None or not thread.is_alive():
            return
        self.get_logger().info('waiting for the last inference of the policy before')
        thread.join(INFERENCE_PATIENCE_S)
        if thread.is_alive():
            self._last_inference = thread
            msg = (
                f'the policy before is still busy with an inference after {INFERENCE_PATIENCE_S:g} '
                's; configure again when it has ended, or start the node again'
            )
            raise SafeVlaError(msg)

    def _activate(self, state: LifecycleState) -> None:
        configured = self._configured
        if configured is None or self._leaving:
            msg = 'the node is shutting down'
            raise SafeVlaError(msg)
        super().on_activate(state)
        self.get_logger().warning(configured.announcement)
        try:
            with self._setting:  # the source of time stays what it is until the node is active
                configured.activate()
        except BaseException:
            super().on_deactivate(state)
            raise

    def _deactivate(self, state: LifecycleState) -> None:
        if self._configured is not None:
            self._configured.deactivate()
        super().on_deactivate(state)

    def _release(self) -> None:
        with self._status.lock:
            configured, self._configured = self._configured, None
        self._node_parameters.release()
        if configured is not None:
            self._last_inference = configured.close()
        del configured
        free_memory()
        self._status.publish_state(UNCONFIGURED)

    def _transition(self, name: str, action: Callable[[], None]) -> TransitionCallbackReturn:
        """Run a transition; rclpy would swallow what it raises."""
        try:
            action()
        except SafeVlaError as error:
            self.get_logger().error(f'{name} failed: {error}')
            return FAILURE
        except Exception as error:
            self.get_logger().error(f'{name} failed: {type(error).__name__}: {error}')
            self.get_logger().error(traceback.format_exc())
            return FAILURE if name == 'configure' else TransitionCallbackReturn.ERROR
        return SUCCESS

    def _answering(self, change_state: ChangeStateCallback) -> ChangeStateCallback:
        """Answer a transition that is not allowed now, where rclpy raises (ROS 2 Jazzy)."""

        def answer(
            request: ChangeState.Request, response: ChangeState.Response
        ) -> ChangeState.Response:
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                self.get_logger().error(f'the transition is refused: {error}')
                response.success = False
                return response

        return answer

    # Services and parameters

    def _on_reset_episode(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        configured = self._configured
        if configured is not None:
            configured.runtime.reset_episode()
        response.success = configured is not None
        response.message = 'new episode' if response.success else 'not configured'
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        configured = self._configured
        response.success = configured is not None
        response.message = 'not configured'
        if configured is not None:
            configured.runtime.pause(request.data)
            obstacle = configured.runtime.obstacle
            response.message = 'paused' if request.data else 'resuming from a fresh observation'
            if obstacle and not request.data:
                response.message = f'not paused any more, but nothing moves: {obstacle}'
        return response

    def _check_time_source(self, changes: list[Any]) -> SetParametersResult:
        """Refuse another source of time while the arm may move; rclpy would switch at once."""
        configured = self._configured
        changed = any(
            change.name == 'use_sim_time' and change.value != self.get_clock().ros_time_is_active
            for change in changes
        )
        if changed and configured is not None and configured.active:
            reason = 'use_sim_time cannot change while the node is active (deactivate it first)'
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _apply(self, resolved: Resolved) -> None:
        configured = self._configured
        if configured is not None:
            configured.apply(resolved)

    def _hardware_id(self) -> str:
        return str(self.get_parameter('hardware_id').value)
