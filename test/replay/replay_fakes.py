"""A policy that answers without a model; processes that are started afresh import it, too."""

import os
import signal
from pathlib import Path

import numpy as np

from safe_vla_ros.replay.latency import LatencyModel
from safe_vla_ros.replay.replay_setup import ReplaySettings, Setup, resolve_methods
from safe_vla_ros.types import ActionChunk, PolicySpec, PruningRecord

SPEC = PolicySpec(
    name='fake',
    kind='fake',
    cameras=('corner', 'gripper'),
    num_cameras=2,
    chunk_size=8,
    num_layers=4,
    action_period_s=0.05,
    execute_steps=4,
    proprio_layout=('ee_position', 'gripper_joints'),
    linear_scale_m=1.0,
    angular_scale_rad=1.0,
    rotation='axis_angle',
    frame='base',
    gripper_open_value=1.0,
    gripper_closed_value=0.0,
    gripper_joint_names=('gripper_left', 'gripper_right'),
    pruning={'layer': 2, 'refresh_threshold': 0.5},
)
PRESSED_ONCE = 'TEST_PRESSED_ONCE'
"""Environment variable with the file that the first Ctrl-C of several processes makes."""

METHODS = ('safe', 'none', 'fastv', 'random')


class FakeMemory:
    """Counts steps; every fifth is a key step."""

    def __init__(self):
        self.steps = 0
        self.reason = 'episode_start'
        self.reference_stamp_s = None

    def clear(self, reason):
        self.reason = reason
        self.reference_stamp_s = None


class FakePolicy:
    """Answers from the pixels alone: the same observation always gives the same chunk."""

    spec = SPEC

    def __init__(self, grids=None):
        self.grids = grids or {'corner': (4, 4), 'gripper': (2, 2)}
        self.calls = 0

    def new_episode(self):
        return FakeMemory()

    def infer(self, observation, memory, pruning):
        self.calls += 1
        memory.steps += 1
        first = memory.reference_stamp_s is None
        key = pruning.method == 'safe' and (first or memory.steps % 5 == 1)
        reason = (memory.reason if first else 'attention_shift') if key else None
        if key:
            memory.reference_stamp_s = observation.stamp_s
        mean = {name: float(image.mean()) for name, image in observation.images.items()}
        offset = {'none': 0.0, 'safe': 0.0 if key else 0.001}.get(pruning.method, 0.002)
        translation = np.zeros((8, 3))
        translation[:, 0] = 0.005 * (1 + mean['corner'] / 255) + offset
        translation[:, 2] = 0.001 * np.sin(observation.stamp_s * 7)
        record = self.record(observation, pruning, key=key, first=first, reason=reason)
        gripper = np.full(8, float(mean['gripper'] > 60))
        return ActionChunk(translation, np.zeros((8, 3)), gripper, record)

    def record(self, observation, pruning, *, key, first, reason):
        whole = key or pruning.method == 'none'
        scores, masks = {}, {}
        for name, (rows, columns) in self.grids.items():
            seed = int(observation.stamp_s * 1000) % 1000
            grid = np.random.default_rng(seed).random((rows, columns), np.float32)
            scores[name] = grid
            masks[name] = np.ones_like(grid, bool) if whole else grid >= np.quantile(grid, 0.75)
        total = {name: grid.size for name, grid in scores.items()}
        return PruningRecord(
            method=pruning.method,
            total=total,
            kept={name: int(mask.sum()) for name, mask in masks.items()},
            key_step=key,
            reason=reason,
            similarity=None if first or pruning.method != 'safe' else 0.4 if key else 0.8,
            threshold=pruning.refresh_threshold,
            scores=scores if pruning.method in {'safe', 'fastv'} else {},
            kept_masks=masks,
            stage_ms={'encode': 1.0, 'decode': 2.0},
            decoder_macs=100 if whole else 40,
            decoder_macs_full=100,
        )


def make_setup(methods=('safe', 'none'), policy=None, latency_s=0.06, values=None, **changes):
    """Resolve settings as replay does, around a policy that needs no model."""
    policy = policy or FakePolicy()
    settings = ReplaySettings(
        values=values or {}, methods=methods, latency=LatencyModel(latency_s), **changes
    )
    return Setup(settings, resolve_methods(settings, policy.spec, METHODS), policy)


class InterruptingPolicy:
    """Presses Ctrl-C at one of its inferences, for its own process and for others.

    A second one interrupts at once, so policies in several processes share the file ``once``: only
    the first of them presses it for others.
    """

    spec = SPEC

    def __init__(self, at, others=(), once=None):
        self.policy, self.at, self.others, self.once = FakePolicy(), at, others, once

    def new_episode(self):
        return self.policy.new_episode()

    def infer(self, *arguments):
        chunk = self.policy.infer(*arguments)
        if self.policy.calls == self.at:
            for process in (os.getpid(), *(self.others if self.is_first() else ())):
                os.kill(process, signal.SIGINT)
        return chunk

    def is_first(self):
        try:
            if self.once is not None:
                Path(self.once).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def load_interrupting_setup(settings):
    """Load a policy that presses Ctrl-C in the process of a terminal's user and in its own."""
    policy = InterruptingPolicy(at=5, others=(os.getppid(),), once=os.environ[PRESSED_ONCE])
    return Setup(settings, resolve_methods(settings, SPEC, METHODS), policy)
