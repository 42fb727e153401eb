"""Finds out whether a policy is there that sees, hears and commands the robot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rclpy.node import NodeNameNonExistentError

if TYPE_CHECKING:
    from rclpy.client import Client
    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.subscription import Subscription
    from rclpy.task import Future


class PolicyPresence:
    """Knows the policy by what any policy does: it hears the instruction and commands the robot.

    If it is a lifecycle node, it must be active, too. Ask again and again: answers take time.
    """

    def __init__(self, node: Node, commands: Subscription, instruction: Publisher) -> None:
        """Take the robot's own ends of the topics.

        Args:
            node: The robot's node.
            commands: Gets the policy's commands.
            instruction: Tells it what to do.
        """
        self._node, self._commands, self._instruction = node, commands, instruction
        self._clients: dict[str, Client] = {}
        self._questions: dict[str, Future[Any]] = {}

    def missing(self) -> str:
        """Return what is missing, as a sentence; empty when a policy listens."""
        commands, instruction = self._commands.topic_name, self._instruction.topic_name
        commanders = _nodes(self._node.get_publishers_info_by_topic(commands))
        if not commanders:
            return (
                f'nobody commands the robot on {commands}; remap it to the topic of your policy, '
                'for example -r ee_twist:=pruned_policy/ee_twist'
            )
        hearing = _nodes(self._node.get_subscriptions_info_by_topic(instruction))
        if not commanders & hearing:
            return f'{", ".join(sorted(commanders))} does not listen to {instruction}'
        inactive = [name for name in sorted(commanders & hearing) if not self._is_active(name)]
        return f'{", ".join(inactive)} is not active yet' if inactive else ''

    def _is_active(self, name: str) -> bool:
        """Tell what the last answer was and ask again; a node without a life cycle is active."""
        service = f'{name}/get_state'
        namespace, _, base = name.rpartition('/')
        try:
            offered = self._node.get_service_names_and_types_by_node(base, namespace or '/')
        except NodeNameNonExistentError:  # it is not known any more, or not yet
            return False
        if service not in (offered_name for offered_name, _ in offered):
            return True
        if name not in self._clients:
            self._clients[name] = self._node.create_client(GetState, service)
        question = self._questions.pop(name, None)
        active = False
        if question is not None and question.done():
            answer = question.result()
            active = answer is not None and answer.current_state.id == State.PRIMARY_STATE_ACTIVE
        elif question is not None:
            self._questions[name] = question
            return False
        if self._clients[name].service_is_ready():
            self._questions[name] = self._clients[name].call_async(GetState.Request())
        return active


def _nodes(endpoints: list[Any]) -> set[str]:
    return {f'{endpoint.node_namespace.rstrip("/")}/{endpoint.node_name}' for endpoint in endpoints}
