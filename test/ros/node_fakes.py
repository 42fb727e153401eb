"""A policy without a model, and where the node gets it from."""

from __future__ import annotations

import queue
import threading
import time
import weakref

import numpy as np

from safe_vla_ros.errors import CheckpointError, NonFiniteError
from safe_vla_ros.ros.policy_source import RegisteredPolicies
from safe_vla_ros.types import ActionChunk, PolicySpec, PruningRecord

CHUNK_STEPS = 8
SPEED_M_S = 0.1
SIZES = {'large': 99.0, 'huge': np.finfo(np.float64).max}
SPEC = PolicySpec(
    name='fake',
    kind='fake',
    cameras=('front', 'wrist'),
    num_cameras=2,
    chunk_size=CHUNK_STEPS,
    num_layers=8,
    action_period_s=0.05,
    execute_steps=4,
    proprio_layout=('ee_position', 'gripper_joints'),
    linear_scale_m=1.0,
    angular_scale_rad=1.0,
    rotation='axis_angle',
    frame='base',
    gripper_open_value=1.0,
    gripper_closed_value=-1.0,
    gripper_joint_names=('finger',),
    limits={'max_linear_accel': 2.0},
    pruning={'layer': 2, 'refresh_threshold': 0.6, 'max_staleness': {0.25: 0.02, 0.5: 0.01}},
)


class FakeMemory:
    """The memory of an episode: a key step where it was cleared."""

    def __init__(self):
        self.reference_stamp_s = None
        self.reason = 'episode_start'

    def clear(self, reason):
        self.reference_stamp_s = None
        self.reason = reason


class FakePolicy:
    """Moves along x at one speed; its faults are switched on from outside.

    The word ``slowly`` in the instruction makes an inference last, ``nan`` makes the chunk not
    finite, ``huge`` makes it as large as numbers go and ``large`` as large as may be, ``fault``
    makes it raise: a process of its own can be told, too.
    """

    spec = SPEC

    def __init__(self, settings):
        self.settings = settings
        self.observations = []
        self.prunings = []
        self.memories = weakref.WeakSet()
        self.latency_s = 0.01
        self.fault = None
        self.not_finite = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def new_episode(self):
        memory = FakeMemory()
        self.memories.add(memory)
        return memory

    def infer(self, observation, memory, pruning):
        self.observations.append(observation)
        self.prunings.append(pruning)
        self.entered.set()
        words = observation.instruction.split()
        self.gate.wait(10.0)
        time.sleep(1.0 if 'slowly' in words else self.latency_s)
        if self.fault is not None:
            raise self.fault
        if 'fault' in words:
            raise NonFiniteError('attention of layer 2 holds values that are not finite')
        key_step = memory.reference_stamp_s is None
        if key_step:
            memory.reference_stamp_s = observation.stamp_s
        moves = np.zeros((CHUNK_STEPS, 3))
        moves[:, 0] = np.nan if self.not_finite or 'nan' in words else SPEED_M_S * 0.05
        turns = np.zeros((CHUNK_STEPS, 3))
        for word, size in SIZES.items():
            if word in words:
                moves[:], turns[:] = size, -size
        record = self.record(key_step, memory, pruning)
        return ActionChunk(moves, turns, np.ones(CHUNK_STEPS), record)

    def record(self, key_step, memory, pruning):
        kept = np.ones((2, 2), bool)
        kept[1] = key_step
        cameras = self.settings.cameras
        return PruningRecord(
            method=pruning.method,
            total=dict.fromkeys(cameras, 4),
            kept=dict.fromkeys(cameras, int(kept.sum())),
            key_step=key_step,
            reason=memory.reason if key_step else None,
            similarity=None if key_step else 0.75,
            threshold=pruning.refresh_threshold,
            scores=dict.fromkeys(cameras, np.eye(2, dtype=np.float32)),
            kept_masks=dict.fromkeys(cameras, kept),
            stage_ms={'encode': 1.0, 'decode': 2.0},
            decoder_macs=int(2e9),
            decoder_macs_full=int(4e9),
        )


class FakePolicies:
    """Loads the fake policy, or fails as it is told.

    A slow load reports the ``shares`` that come, up to None, and then waits for the ``gate``;
    the policy ``endless`` is never loaded.
    """

    def __init__(self):
        self.policy = None
        self.forget()

    def forget(self):
        self.spec = SPEC
        self.loading_fault = None
        self.first_fault = None
        self.slow = False
        self.gate = threading.Event()
        self.shares = queue.Queue()

    def read_spec(self, reference):
        if reference == 'absent':
            msg = "policy 'absent' is neither a directory nor a bundled policy"
            raise CheckpointError(msg)
        return self.spec

    def load(self, reference, settings, threads, progress):
        if reference == 'endless':
            threading.Event().wait()
        if self.slow:
            while (share := self.shares.get()) is not None:
                progress(share)
        if self.loading_fault is not None:
            raise self.loading_fault
        self.policy = FakePolicy(settings)
        self.policy.fault = self.first_fault
        if self.slow:
            self.policy.gate = self.gate
        return self.policy

    def pruner_names(self):
        return ('safe', 'none')


class KeptChunks(RegisteredPolicies):
    """The policies of this package; what they answer is kept, by stamp to the microsecond."""

    def __init__(self):
        self.chunks = {}

    def load(self, *arguments):
        policy, chunks = super().load(*arguments), self.chunks

        class Keeping:
            spec, new_episode = policy.spec, policy.new_episode

            def infer(self, observation, memory, pruning):
                chunk = policy.infer(observation, memory, pruning)
                chunks[round(observation.stamp_s, 6)] = chunk
                return chunk

        return Keeping()
