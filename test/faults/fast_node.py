"""The executable with a fake policy that wants more speed than is allowed.

The file named first shifts its system clock. SIGUSR1 makes inferences hang, SIGUSR2 lets them go.
"""

import dataclasses
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'ros'))

import numpy as np
from node_fakes import FakePolicies, FakePolicy
from shifted_clock import shift_system_time

from safe_vla_ros.ros.pruned_policy import main

FASTER = 4.0


class FastPolicy(FakePolicy):
    """Always wants to go faster along x than the limits allow."""

    def infer(self, observation, memory, pruning):
        chunk = super().infer(observation, memory, pruning)
        return dataclasses.replace(chunk, translation_m=np.asarray(chunk.translation_m) * FASTER)


class FastPolicies(FakePolicies):
    """Loads the fast policy."""

    def load(self, *arguments):
        self.policy = FastPolicy(super().load(*arguments).settings)
        return self.policy

    def hang(self, number, _frame):
        if self.policy is not None:
            (self.policy.gate.clear if number == signal.SIGUSR1 else self.policy.gate.set)()


if __name__ == '__main__':
    shift_system_time(Path(sys.argv.pop(1)))
    policies = FastPolicies()
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, policies.hang)
    main(policies=policies)
