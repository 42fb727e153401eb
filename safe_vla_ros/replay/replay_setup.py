"""From a robot's parameters to everything that a replay of one bag needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from safe_vla_ros.replay.latency import LatencyModel
from safe_vla_ros.replay.topic_routes import Wanted
from safe_vla_ros.runtime.make_runtime import make_runtime
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
from safe_vla_ros.runtime.proprio import joints_in_use, needs_pose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.runtime.policy_runtime import PolicyRuntime
    from safe_vla_ros.types import Clock, Policy, PolicySpec

LOG_CLOCK, STAMP_CLOCK = 'log', 'stamps'


@dataclass(frozen=True)
class OverlaySettings:
    """How overlays are written.

    Attributes:
        transport: ``compressed`` (JPEG), ``raw`` or ``none``.
        max_width: Wider images are made smaller first, pixels.
    """

    transport: str = 'compressed'
    max_width: int = 320


@dataclass(frozen=True)
class ReplaySettings:
    """What a replay is asked to do; a value, so that every process gets the same.

    Attributes:
        values: Parameters of the node by name, as in a robot's file.
        methods: Pruning methods; the first one is the robot's own.
        latency: How long an inference takes.
        remappings: Topics by the node's names for them.
        topics: Topics by camera or part.
        clock: ``log`` takes the recorder's time, ``stamps`` the headers'.
        overlays: How overlays are written.
    """

    values: Mapping[str, Any]
    methods: tuple[str, ...]
    latency: LatencyModel
    remappings: Mapping[str, str] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)
    clock: str = LOG_CLOCK
    overlays: OverlaySettings = OverlaySettings()


@dataclass(frozen=True)
class Setup:
    """Resolved settings by method, and the policy that they share.

    Attributes:
        settings: What was asked.
        resolved: Complete settings by method, the robot's own first.
        policy: The loaded policy.
    """

    settings: ReplaySettings
    resolved: Mapping[str, Resolved]
    policy: Policy

    @property
    def own(self) -> Resolved:
        """The settings of the robot's own method."""
        return next(iter(self.resolved.values()))

    def wanted(self) -> Wanted:
        """Return what to look for in a bag."""
        own = self.own
        layout, joints = own.policy.proprio_layout, own.policy.gripper_joint_names
        required = set()
        if not own.node.instruction:
            required.add('instruction')
        if needs_pose(own.control, layout):
            required.add('ee_pose')
        if joints_in_use(layout, joints):
            required.add('joint_states')
        return Wanted(
            cameras=own.policy.cameras,
            transport=own.node.image_transport,
            ee_frame=own.node.ee_frame,
            required=frozenset(required),
            remappings=self.settings.remappings,
            overrides=self.settings.topics,
        )

    def make_runtime(self, method: str, clock: Clock, policy: Policy) -> PolicyRuntime:
        """Return an active runtime that prunes with this method."""
        runtime = make_runtime(policy, self.resolved[method], clock=clock)
        runtime.activate()
        return runtime


def resolve_methods(
    settings: ReplaySettings, spec: PolicySpec, pruner_names: tuple[str, ...]
) -> dict[str, Resolved]:
    """Resolve the parameters once per method.

    Raises:
        ParameterError: A value, a combination or a method is not allowed.
    """
    return {
        method: resolve(
            {**settings.values, 'pruning.method': method}, spec, pruner_names=pruner_names
        )
        for method in settings.methods
    }


def load_setup(settings: ReplaySettings) -> Setup:
    """Read the policy's directory, resolve the parameters and load the policy.

    One inference uses as many CPU threads as the parameter says and one by default, so that a
    result depends neither on the machine's cores nor on how many replays share them.

    Raises:
        ParameterError: A parameter is not allowed.
        CheckpointError: The policy cannot be loaded.
    """
    import torch  # noqa: PLC0415  (seconds; not for --help)

    from safe_vla_ros.policies.registry import load_policy, read_spec  # noqa: PLC0415
    from safe_vla_ros.pruning.registry import PRUNER_NAMES  # noqa: PLC0415

    reference = policy_reference(settings.values)
    spec = read_spec(reference)
    resolved = resolve_methods(settings, spec, PRUNER_NAMES)
    own = next(iter(resolved.values()))
    torch.set_num_threads(own.node.inference_threads or 1)
    policy = load_policy(reference, own.policy)
    return Setup(replace(settings), resolved, policy)


def policy_reference(values: Mapping[str, Any]) -> str:
    """Return which policy the parameters name."""
    from safe_vla_ros.runtime.parameters import PARAMETERS  # noqa: PLC0415

    return str(values.get('policy') or PARAMETERS['policy'].default)
