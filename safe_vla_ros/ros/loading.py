"""Loading a policy: in the log and in the node's state it says how far it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.ros.policy_source import number_of_threads
from safe_vla_ros.ros.warm_up import warm_up
from safe_vla_ros.runtime import RuntimeState, StateName

if TYPE_CHECKING:
    from collections.abc import Callable

    from rclpy.impl.rcutils_logger import RcutilsLogger

    from safe_vla_ros.ros.policy_source import PolicySource
    from safe_vla_ros.runtime.parameters import Resolved
    from safe_vla_ros.types import Policy, PolicySpec

TELL_PERIOD_S = 0.2
"""A percentage is not worth more messages than this."""


class Loader:
    """Loads policies for a node that may be asked to leave meanwhile."""

    def __init__(
        self,
        policies: PolicySource,
        logger: RcutilsLogger,
        tell: Callable[[RuntimeState], None],
        is_leaving: Callable[[], bool],
    ) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            policies: Where policies come from.
            logger: Is told what takes long and how long it took.
            tell: Is told every state, ``loading`` with its stage as the reason.
            is_leaving: Tells whether loading is of no use any more.
        """
        self._policies = policies
        self._logger = logger
        self._tell = tell
        self._is_leaving = is_leaving
        self._percent, self._told_s = -1, 0.0

    def read_spec(self, reference: str) -> PolicySpec:
        """Read what a policy says about itself, without its weights.

        Raises:
            CheckpointError: There is no such policy, or it says nothing usable.
        """
        self._begin(f'reading what {reference} says about itself')
        return self._policies.read_spec(reference)

    def load(self, reference: str, spec: PolicySpec, resolved: Resolved) -> Policy:
        """Load a policy and try it out.

        Raises:
            SafeVlaError: It cannot be loaded, does not work with these settings, or the node is
                leaving.
        """
        name = f'policy {spec.name} ({spec.kind})'
        self._logger.info(f'loading {name}')
        self._begin(f'{name}: 0 % of the weights')
        start_s = time.perf_counter()
        threads = number_of_threads(resolved.node.inference_threads)
        policy = self._policies.load(
            reference, resolved.policy, threads, lambda share: self._progress(name, share)
        )
        self._begin(f'{name}: trying it out')
        self._logger.info(f'loaded after {time.perf_counter() - start_s:.1f} s; trying it out')
        durations_s, context_bytes = warm_up(policy, resolved)
        self._refuse_when_leaving()
        text = ' and '.join(f'{duration_s:.3g}' for duration_s in durations_s)
        self._logger.info(f'the trial inferences took {text} s')
        if context_bytes:
            self._logger.info(
                f'{resolved.pruning.method} keeps keys and values between steps: '
                f'{context_bytes / 1e6:.3g} MB'
            )
        limit_s = resolved.control.max_chunk_age_s
        if min(durations_s) > limit_s:
            self._logger.warning(
                f'an inference takes longer than max_chunk_age_s ({limit_s:g} s), so no chunk will '
                'be played. Use a faster device. If nothing moves while the policy thinks, you can '
                'raise max_chunk_age_s instead.'
            )
        return policy

    def _begin(self, stage: str) -> None:
        self._refuse_when_leaving()
        self._percent, self._told_s = 0, time.monotonic()
        self._tell(RuntimeState(StateName.LOADING, stage))

    def _progress(self, name: str, share: float) -> None:
        self._refuse_when_leaving()
        percent, now_s = int(100 * share), time.monotonic()
        if percent > self._percent and now_s - self._told_s >= TELL_PERIOD_S:
            self._percent, self._told_s = percent, now_s
            self._tell(RuntimeState(StateName.LOADING, f'{name}: {percent} % of the weights'))

    def _refuse_when_leaving(self) -> None:
        if self._is_leaving():
            msg = 'the node is shutting down'
            raise SafeVlaError(msg)
