"""A service that is answered in a thread of its own, while the executor of its node goes on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.service import Service


def answer_in_background(node: Node, service: Service) -> None:
    """Move what a service does out of the executor of its node.

    A thread per request, not a second executor thread: a node has one executor, and that one stays
    single-threaded (see ``Spinner``). Requests may overlap, so the service must bear that.

    Args:
        node: Its executor waits for the answer without being blocked, and sends it.
        service: Any service of the node.
    """
    answer = service.callback

    async def callback(request: Any, response: Any) -> Any:
        executor = node.executor
        done = Future(executor=executor)

        def work() -> None:
            try:
                done.set_result(answer(request, response))
            except Exception as error:
                done.set_exception(error)
            # Who awaits a future is asked again only when something wakes the executor.
            executor.wake()

        threading.Thread(target=work, name=service.srv_name, daemon=True).start()
        return await done

    service.callback = callback
    service.callback_group = ReentrantCallbackGroup()
    service.callback_group.add_entity(service)
