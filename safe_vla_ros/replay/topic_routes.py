"""Which topic of a bag plays which part, from the names that the node subscribes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safe_vla_ros.replay.errors import BagError, ReplayError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from safe_vla_ros.replay.bags import TopicType

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
TYPES = {
    'instruction': 'std_msgs/msg/String',
    'ee_pose': 'geometry_msgs/msg/PoseStamped',
    'joint_states': 'sensor_msgs/msg/JointState',
    'recorded_twist': 'geometry_msgs/msg/TwistStamped',
    'recorded_gripper': 'std_msgs/msg/Float64',
    'episode': 'diagnostic_msgs/msg/DiagnosticArray',
}
"""Parts beside the cameras and their types.

``recorded_twist`` and ``recorded_gripper`` are commands to compare with; a status ``started`` on
``episode`` begins a new episode, as the service ``~/reset_episode`` does, which no bag records.
"""

NAMES = {
    'recorded_twist': ('ee_twist', 'delta_twist_cmds'),
    'recorded_gripper': ('gripper',),
}
"""Names of the parts' topics, where they are not the part's own."""


@dataclass(frozen=True)
class Route:
    """One topic of a bag and the part it plays.

    Attributes:
        part: ``image`` or a key of ``TYPES``.
        camera: Camera of an image, else empty.
        topic: Topic in the bag.
        msgtype: Its type.
        count: Number of messages.
    """

    part: str
    camera: str
    topic: str
    msgtype: str
    count: int


@dataclass(frozen=True)
class Wanted:
    """What replay looks for in a bag.

    Attributes:
        cameras: Camera names.
        transport: ``raw`` or ``compressed``: which is taken where the bag has both.
        required: Parts without which the policy cannot run.
        remappings: Topic by the node's name for it, for example ``agentview/image_raw``.
        overrides: Topic by camera or part; an empty topic means that the part is left out.
        ee_frame: Frame whose pose the live node looks up in tf; a bag has no such look-up.
    """

    cameras: tuple[str, ...]
    transport: str
    required: frozenset[str]
    remappings: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    ee_frame: str = ''


@dataclass(frozen=True)
class Routes:
    """The topics of one bag that replay reads.

    Attributes:
        by_topic: Route by topic.
        notes: What a reader of the result should know, in sentences.
    """

    by_topic: Mapping[str, Route]
    notes: tuple[str, ...]

    def has(self, part: str) -> bool:
        """Tell whether any topic plays this part."""
        return any(route.part == part for route in self.by_topic.values())


def parse_overrides(items: Sequence[str], cameras: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=TOPIC`` items.

    Raises:
        ReplayError: An item has another form or names no camera and no part.
    """
    overrides: dict[str, str] = {}
    allowed = (*cameras, *TYPES)
    for item in items:
        name, equals, topic = item.partition('=')
        if not equals or name not in allowed:
            msg = f'--topics got {item!r}; allowed is NAME=TOPIC with NAME {", ".join(allowed)}'
            raise ReplayError(msg)
        overrides[name] = topic
    return overrides


def find_routes(available: Sequence[TopicType], wanted: Wanted) -> Routes:
    """Find the topics that play the parts.

    A part's topic is the override, else the remapping, else ``/<name>``, else the only topic that
    ends in ``/<name>`` (a namespace).

    Args:
        available: The bag's topics, types and counts.
        wanted: What to look for.

    Returns:
        The topics found.

    Raises:
        BagError: Something required is missing or ambiguous, or a topic has another type; all such
            things are named at once.
    """
    search = _Search(available, wanted)
    for camera in wanted.cameras:
        search.find_camera(camera)
    for part, msgtype in TYPES.items():
        search.find_part(part, msgtype)
    if search.problems:
        raise BagError('; '.join(search.problems))
    return Routes(search.routes, tuple(search.notes))


class _Search:
    def __init__(self, available: Sequence[TopicType], wanted: Wanted) -> None:
        self.wanted = wanted
        self.counts: dict[str, dict[str, int]] = {}
        for topic, msgtype, count in available:
            self.counts.setdefault(topic, {})[msgtype] = count
        self.routes: dict[str, Route] = {}
        self.problems: list[str] = []
        self.notes: list[str] = []

    def find_camera(self, camera: str) -> None:
        if camera in self.wanted.overrides:
            chosen = self.wanted.overrides[camera]
            types = (COMPRESSED, IMAGE) if chosen.endswith('/compressed') else (IMAGE, COMPRESSED)
            self._take('image', camera, chosen, types, required=True)
            return
        raw, compressed = f'{camera}/image_raw', f'{camera}/image_raw/compressed'
        choices = [(raw, IMAGE), (compressed, COMPRESSED)]
        if self.wanted.transport == 'compressed':
            choices.reverse()
        for index, (name, msgtype) in enumerate(choices):
            topic = self._topic_of((name,))
            if topic is not None:
                if index:
                    self.notes.append(f'camera {camera} is read from {topic}')
                self._take('image', camera, topic, (msgtype,), required=True)
                return
        self._missing(f'camera {camera}', f'{raw} or {compressed}', (IMAGE, COMPRESSED))

    def find_part(self, part: str, msgtype: str) -> None:
        required = part in self.wanted.required
        topic: str | None
        if part in self.wanted.overrides:
            topic = self.wanted.overrides[part]
        else:
            topic = self._topic_of(NAMES.get(part, (part,)), msgtype)
        if topic:
            self._take(part, '', topic, (msgtype,), required=required)
        elif required:
            self._missing(part, part, (msgtype,))

    def _topic_of(self, names: tuple[str, ...], msgtype: str | None = None) -> str | None:
        for name in names:
            for key in (name, f'~/{name}'):
                if key in self.wanted.remappings:
                    return '/' + self.wanted.remappings[key].lstrip('/')
        topics = [t for t, types in self.counts.items() if msgtype is None or msgtype in types]
        for name in names:
            if f'/{name}' in topics:
                return f'/{name}'
            found = [topic for topic in topics if topic.endswith(f'/{name}')]
            if len(found) == 1:
                self.notes.append(f'{name} is read from {found[0]}')
                return found[0]
            if found:
                text = f'{name} could be {" or ".join(found)}'
                self.notes.append(f'{text}; choose one with --topics')
        return None

    def _take(
        self, part: str, camera: str, topic: str, types: tuple[str, ...], *, required: bool
    ) -> None:
        counts = self.counts.get(topic, {})
        msgtype = next((t for t in types if t in counts), None)
        if msgtype is None:
            name = camera or part
            if counts:
                found = f'is {", ".join(counts)}, allowed is {" or ".join(types)}'
                self.problems.append(f'topic {topic} ({name}) {found}')
            elif required or name in self.wanted.overrides:
                self._missing(name, topic, types)
            return
        if topic in self.routes:
            self.problems.append(f'topic {topic} cannot be two things at once')
            return
        ignored = {t: count for t, count in counts.items() if t != msgtype}
        for other, count in ignored.items():
            self.notes.append(f'topic {topic} has two types: {count} messages {other} were skipped')
        self.routes[topic] = Route(part, camera, topic, msgtype, counts[msgtype])

    def _missing(self, what: str, name: str, types: tuple[str, ...]) -> None:
        fitting = sorted(
            topic for topic, counts in self.counts.items() if any(t in counts for t in types)
        )
        have = (
            f'of that type it has {", ".join(fitting)}' if fitting else 'it has none of that type'
        )
        ambiguous = [note for note in self.notes if note.startswith(tuple(name.split(' or ')))]
        hint = ambiguous[0] if ambiguous else have
        if what == 'ee_pose' and self.wanted.ee_frame:
            hint += f'; ee_frame is {self.wanted.ee_frame!r}, but replay does not look into tf'
        self.problems.append(f'no topic for {what} ({name}, {" or ".join(types)}): {hint}')
