"""The MetaWorld tasks of the bundled policy, each with the sentence that asks for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One manipulation task.

    Attributes:
        name: Name in this project.
        environment: MetaWorld v3 environment name.
        sentence: Instruction given to the policy.
    """

    name: str
    environment: str
    sentence: str


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task('reach', 'reach-v3', 'reach the red ball'),
        Task('push', 'push-v3', 'push the red puck to the green ball'),
        Task('drawer-open', 'drawer-open-v3', 'open the drawer'),
        Task('door-open', 'door-open-v3', 'open the door'),
        Task('button-press-topdown', 'button-press-topdown-v3', 'press the button from above'),
        Task('window-open', 'window-open-v3', 'open the window'),
    )
}
"""Tasks by name, in the order of tables."""


def get_task(name: str) -> Task:
    """Return a task by name.

    Raises:
        KeyError: The name is unknown; the message lists the known ones.
    """
    try:
        return TASKS[name]
    except KeyError:
        msg = f'unknown task {name!r}; known tasks: {", ".join(TASKS)}'
        raise KeyError(msg) from None
