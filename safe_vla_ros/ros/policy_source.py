"""Where the node gets its policy from; torch is imported when a policy is loaded, not before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from safe_vla_ros.types import Policy, PolicySettings, PolicySpec

MOST_THREADS = 4


class PolicySource(Protocol):
    """Finds, describes and loads policies."""

    def read_spec(self, reference: str) -> PolicySpec:
        """Read what a policy says about itself, without its weights."""
        ...

    def load(
        self,
        reference: str,
        settings: PolicySettings,
        threads: int,
        progress: Callable[[float], None],
    ) -> Policy:
        """Load a policy that may use so many CPU threads.

        Args:
            reference: Which.
            settings: Complete settings.
            threads: CPU threads of an inference.
            progress: Called with the share of the weights that has been read, 0 to 1; what it
                raises ends the loading.
        """
        ...

    def pruner_names(self) -> tuple[str, ...]:
        """Return the names of the registered pruners."""
        ...


class RegisteredPolicies:
    """The policies and pruners of this package."""

    def read_spec(self, reference: str) -> PolicySpec:
        """Read what a policy says about itself, without its weights."""
        from safe_vla_ros.policies.registry import read_spec  # noqa: PLC0415

        return read_spec(reference)

    def load(
        self,
        reference: str,
        settings: PolicySettings,
        threads: int,
        progress: Callable[[float], None],
    ) -> Policy:
        """Load a policy that may use so many CPU threads."""
        import torch  # noqa: PLC0415

        from safe_vla_ros.policies.registry import load_policy  # noqa: PLC0415

        torch.set_num_threads(threads)
        return load_policy(reference, settings, progress)

    def pruner_names(self) -> tuple[str, ...]:
        """Return the names of the registered pruners."""
        from safe_vla_ros.pruning.registry import PRUNER_NAMES  # noqa: PLC0415

        return PRUNER_NAMES


def number_of_threads(wanted: int) -> int:
    """Return the CPU threads of one inference.

    Args:
        wanted: As the parameter says; 0 leaves a core to the control loop.
    """
    return wanted or min(MOST_THREADS, max(1, len(os.sched_getaffinity(0)) - 1))
