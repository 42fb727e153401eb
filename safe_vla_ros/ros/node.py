"""The lifecycle node `pruned_policy`: connects parameters, policy and topics to its transitions."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Any

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.garbage import free_memory, spare_what_exists
from safe_vla_ros.ros.configured_policy import INACTIVE, ConfiguredPolicy
from safe_vla_ros.ros.control_loop import make_companion
from safe_vla_ros.ros.parameters import NodeParameters
from safe_vla_ros.ros.policy_source import (
    PolicySource,
    RegisteredPolicies,
    number_of_threads,
)
from safe_vla_ros.ros.status import Status
from safe_vla_ros.ros.warm_up import warm_up
from safe_vla_ros.runtime import RuntimeState

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread

    from rcl_interfaces.msg import SetParametersResult

    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Policy, PolicySpec

    ChangeStateCallback = Callable[
        [ChangeState.Request, ChangeState.Response], ChangeState.Response
    ]

UNCONFIGURED = RuntimeState('waiting', 'the node is not configured')
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
        super().__init__('pruned_policy', **options)
        self._policies = policies or RegisteredPolicies()
        self._configured: ConfiguredPolicy | None = None
        self._leaving = False
        self._companion = make_companion(self)
        self._last_inference: Thread | None = None
        self._node_parameters = NodeParameters(self, self._apply)
        self._status = Status(self, self._hardware_id, lambda: self._configured)
        self._status.publish_state(UNCONFIGURED)
        self._service_change_state.callback = self._answering(self._service_change_state.callback)
        self.create_service(Trigger, '~/reset_episode', self._on_reset_episode)
        self.create_service(SetBool, '~/pause', self._on_pause)
        for refusal in self._node_parameters.refusals.values():
            self.get_logger().error(f'configure will fail: {refusal}')
        for stranger in self._node_parameters.strangers():
            self.get_logger().warning(f'ignored: {stranger}')

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
        result = super().set_parameters_atomically(parameter_list)
        if not result.successful:
            result.reason = self._node_parameters.explain(parameter_list) or result.reason
        return result

    def _configure(self, state: LifecycleState) -> None:
        self._wait_for_last_inference()
        parameters = self._node_parameters
        spec = self._policies.read_spec(parameters.policy)
        resolved = parameters.configure(spec, self._policies.pruner_names())
        threads = number_of_threads(resolved.node.inference_threads)
        try:
            policy = self._load(spec, resolved, threads)
            self._configured = ConfiguredPolicy(
                self, self._companion, policy, resolved, self._status
            )
        except BaseException:
            parameters.release()
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

    def _load(self, spec: PolicySpec, resolved: Resolved, threads: int) -> Policy:
        """Load the policy and try it out, saying what takes long and how long it took."""
        logger = self.get_logger()
        logger.info(f'loading policy {spec.name} ({spec.kind})')
        start_s = time.perf_counter()
        policy = self._policies.load(self._node_parameters.policy, resolved.policy, threads)
        logger.info(f'loaded after {time.perf_counter() - start_s:.1f} s; trying it out')
        durations_s = warm_up(policy, resolved)
        text = ' and '.join(f'{duration_s:.3g}' for duration_s in durations_s)
        logger.info(f'inferences to try it out took {text} s')
        limit_s = resolved.control.max_chunk_age_s
        if min(durations_s) > limit_s:
            logger.warning(
                f'an inference takes longer than max_chunk_age_s ({limit_s:g} s): no chunk will be '
                'played. Use a faster device or, if nothing moves while the policy thinks, raise it'
            )
        return policy

    def _activate(self, state: LifecycleState) -> None:
        configured = self._configured
        if configured is None or self._leaving:
            msg = 'the node is leaving'
            raise SafeVlaError(msg)
        super().on_activate(state)
        self.get_logger().warning(configured.announcement)
        configured.activate()

    def _deactivate(self, state: LifecycleState) -> None:
        if self._configured is not None:
            self._configured.deactivate()
        super().on_deactivate(state)

    def _release(self) -> None:
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
        if self._configured is not None:
            self._configured.runtime.reset_episode()
        response.success = self._configured is not None
        response.message = 'a new episode begins' if response.success else 'not configured'
        return response

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if self._configured is not None:
            self._configured.runtime.pause(request.data)
        response.success = self._configured is not None
        done = 'paused' if request.data else 'resumes from a fresh observation'
        response.message = done if response.success else 'not configured'
        return response

    def _apply(self, resolved: Resolved) -> None:
        if self._configured is not None:
            self._configured.apply(resolved)

    def _hardware_id(self) -> str:
        return str(self.get_parameter('hardware_id').value)
