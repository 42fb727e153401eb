"""Collecting and training run end to end on a few frames, and resume."""

import pytest
import torch

from safe_vla_ros.policies import read_spec
from safe_vla_ros.sim import collect, train
from safe_vla_ros.sim.closed_loop import load_bundled


@pytest.fixture(scope='module')
def demonstrations(tmp_path_factory):
    out = tmp_path_factory.mktemp('demos')
    arguments = ['--tasks', 'reach', '--samples', '24', '--shards', '1', '--jobs', '1']
    collect.main(['--out', str(out), *arguments, '--seed', '0'])
    return out


def run_training(demonstrations, out, *extra):
    train.main(
        ['--data', str(demonstrations), '--out', str(out), '--no-compile', '--batch', '4', *extra]
    )


def test_collecting_again_keeps_what_is_there(demonstrations):
    shard = demonstrations / 'reach-00.npz'
    before = shard.stat().st_mtime_ns
    collect.main(['--out', str(demonstrations), '--tasks', 'reach', '--shards', '1', '--jobs', '1'])
    assert shard.stat().st_mtime_ns == before


def test_training_leaves_a_policy_that_loads(demonstrations, tmp_path):
    run_training(demonstrations, tmp_path, '--stem-steps', '1', '--steps', '2')
    policy = load_bundled(str(tmp_path / 'policy'))
    assert policy.spec.chunk_size == 8
    assert read_spec(str(tmp_path / 'policy')).action_period_s == 0.05


def test_training_goes_on_where_it_was_interrupted(demonstrations, tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'CHECKPOINT_EVERY', 1)
    run_training(demonstrations, tmp_path / 'whole', '--steps', '3')

    steps = []
    original = train.Trainer._train_step

    def interrupted(self, batch):
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(self.step)
        return original(self, batch)

    monkeypatch.setattr(train.Trainer, '_train_step', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(demonstrations, tmp_path / 'resumed', '--steps', '3')
    assert not (tmp_path / 'resumed' / 'policy').exists()
    monkeypatch.setattr(train.Trainer, '_train_step', original)
    run_training(demonstrations, tmp_path / 'resumed', '--steps', '3')
    assert steps == [0, 1]
    state = torch.load(tmp_path / 'resumed' / 'policy-resume.pt', weights_only=True)
    assert state['step'] == 3
