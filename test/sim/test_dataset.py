"""Shards are whole or absent."""

import numpy as np
import pytest

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.mini import make_tokenizer
from safe_vla_ros.sim.batches import LINEAR_SCALE_M, BatchMaker
from safe_vla_ros.sim.dataset import SampleWriter, load_samples
from safe_vla_ros.sim.tasks import TASKS


def write_shard(path, count=6, seed=0):
    random = np.random.default_rng(seed)
    writer = SampleWriter()
    for index in range(count):
        images = {
            'corner': random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
            'gripper': random.integers(0, 256, (112, 112, 3), dtype=np.uint8),
        }
        writer.add(
            images,
            np.full(5, index, np.float32),
            np.full((8, 3), 0.01, np.float32),
            np.linspace(0, 1, 8, dtype=np.float32),
            np.zeros(6, np.float32),
            np.int8(index % len(TASKS)),
            np.int64(index),
        )
    writer.write(path)
    return writer


def test_a_shard_comes_back_as_it_was_written(tmp_path):
    write_shard(tmp_path / 'a.npz')
    samples = load_samples([tmp_path])
    assert len(samples) == 6
    assert samples.corner.shape == (6, 3, 112, 112)
    assert samples.gripper.shape == (6, 3, 56, 56)
    np.testing.assert_array_equal(samples.proprio[:, 0], np.arange(6))
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.npz']


def test_an_interrupted_write_leaves_no_shard(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(np, 'savez', fail)
    with pytest.raises(OSError, match='disk full'):
        write_shard(tmp_path / 'a.npz')
    assert not list(tmp_path.glob('*.npz'))


def test_no_shards_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(SafeVlaError, match='collect first'):
        load_samples([tmp_path])


def test_batches_are_in_model_units(tmp_path):
    write_shard(tmp_path / 'a.npz')
    tokenizer = make_tokenizer([task.sentence for task in TASKS.values()])
    batch = BatchMaker(load_samples([tmp_path]), tokenizer, 10).make(np.array([1, 4]))
    np.testing.assert_allclose(batch.actions[..., :3], 0.01 / LINEAR_SCALE_M, rtol=1e-6)
    np.testing.assert_allclose(batch.actions[0, :, 3], np.linspace(-1, 1, 8), atol=1e-6)
    assert batch.instruction_ids.shape == (2, 10)


def test_a_resumed_stream_goes_on_with_the_next_batch(tmp_path):
    write_shard(tmp_path / 'a.npz', count=20)
    tokenizer = make_tokenizer([task.sentence for task in TASKS.values()])
    maker = BatchMaker(load_samples([tmp_path]), tokenizer, 10)
    whole = maker.stream(np.arange(20), 4, seed=1, skip=0)
    resumed = maker.stream(np.arange(20), 4, seed=1, skip=3)
    batches = [next(whole).proprio for _ in range(5)]
    np.testing.assert_array_equal(next(resumed).proprio, batches[3])
    np.testing.assert_array_equal(next(resumed).proprio, batches[4])
