"""Shards are whole or absent, and batches say for either bowl what the expert would do."""

import numpy as np
import pytest

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.mini import make_tokenizer
from safe_vla_ros.sim.batches import LARGEST_SHIFT_PX, BatchMaker
from safe_vla_ros.sim.dataset import load_samples
from safe_vla_ros.sim.expert_policy import LINEAR_SCALE_M
from safe_vla_ros.sim.marks import token_shares

SIDES = {'agentview': 14, 'wrist': 8}


@pytest.fixture
def maker(tmp_path, write_shard, monkeypatch):
    """A maker of batches from 20 synthetic samples, that needs no LIBERO for its sentences."""
    monkeypatch.setattr('safe_vla_ros.sim.batches.sentence_of', lambda scene, bowl: f'bowl {bowl}')
    monkeypatch.setattr('safe_vla_ros.sim.batches.draw_phrasing', lambda text, random: text)
    write_shard(tmp_path / 'a.npz', count=20)
    tokenizer = make_tokenizer(['bowl 0', 'bowl 1'])
    return BatchMaker(load_samples([tmp_path]), tokenizer, 4, SIDES)


def test_a_shard_comes_back_as_it_was_written(tmp_path, write_shard):
    write_shard(tmp_path / 'a.npz', count=6)
    samples = load_samples([tmp_path])
    assert len(samples) == 6
    assert samples.agentview.shape == (6, 3, 112, 112)
    assert samples.wrist.shape == (6, 3, 96, 96)
    np.testing.assert_array_equal(samples.proprio[:, 0], np.arange(6))
    assert list(tmp_path.iterdir()) == [tmp_path / 'a.npz']


def test_an_interrupted_write_leaves_no_shard(tmp_path, write_shard, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('disk full')

    monkeypatch.setattr(np, 'savez', fail)
    with pytest.raises(OSError, match='disk full'):
        write_shard(tmp_path / 'a.npz')
    assert not list(tmp_path.glob('*.npz'))


def test_no_shards_is_an_error_that_says_what_to_run(tmp_path):
    with pytest.raises(SafeVlaError, match='collect first'):
        load_samples([tmp_path])


def test_a_frame_is_asked_for_either_bowl_where_both_plans_are_worth_learning(maker):
    pairs = maker.pairs(np.arange(4))
    # Every third sample of the shard has something in the hand: the first bowl only.
    np.testing.assert_array_equal(pairs, [0, 2, 3, 4, 5, 6])


def test_batches_are_in_model_units(maker):
    batch = maker.make(np.array([2, 3]))
    np.testing.assert_allclose(batch.actions[0, :, :3], 0.01 / LINEAR_SCALE_M, rtol=1e-6)
    np.testing.assert_allclose(batch.actions[1, :, :3], -0.01 / LINEAR_SCALE_M, rtol=1e-6)
    np.testing.assert_allclose(batch.actions[0, :, 3], np.linspace(-1, 1, 8), atol=1e-6)
    assert batch.instruction_ids.shape == (2, 4)
    assert batch.things.shape == (2, 14 * 14 + 8 * 8, 3)


def test_the_same_frame_has_other_labels_with_the_other_sentence(maker):
    batch = maker.make(np.array([2, 3]))
    for images in batch.images.values():
        np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(batch.things[0], batch.things[1])
    assert batch.instruction_ids[0].tolist() != batch.instruction_ids[1].tolist()
    np.testing.assert_allclose(batch.relative[0, :3], [2.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(batch.relative[1, :3], [0.0, 2.0, 0.0], atol=1e-6)
    np.testing.assert_array_equal(batch.relative[0, 3:], batch.relative[1, 3:])
    asked = batch.asked.bool()
    assert asked.any(1).all()
    assert not (asked[0] & asked[1]).any()


def test_an_image_and_its_marks_are_shifted_together(maker, monkeypatch):
    marks = []

    def remembered(marks_of_camera, side):
        marks.append(marks_of_camera)
        return token_shares(marks_of_camera, side)

    monkeypatch.setattr('safe_vla_ros.sim.batches.token_shares', remembered)
    plain = maker.make(np.array([2])).images
    shifts = set()
    for seed in range(10):
        shifted = maker.make(np.array([2]), np.random.default_rng(seed)).images
        for camera, (name, image) in enumerate(shifted.items()):
            side, most = image.shape[-1], LARGEST_SHIFT_PX
            moved = (marks[-2:][camera] - marks[:2][camera])[0, :, :2] * side
            right, down = np.round(moved[0]).astype(int)
            np.testing.assert_allclose(moved, np.tile((right, down), (4, 1)), atol=1e-4)
            inner = (0, slice(None), slice(most, -most), slice(most, -most))
            expected = np.roll(plain[name].numpy(), (down, right), (2, 3))
            np.testing.assert_array_equal(image.numpy()[inner], expected[inner])
            shifts.add((right, down))
    assert len(shifts) > 3


def test_a_resumed_stream_goes_on_with_the_next_batch(maker):
    pairs = maker.pairs(np.arange(20))
    whole = maker.stream(pairs, 4, seed=1, skip=0)
    resumed = maker.stream(pairs, 4, seed=1, skip=3)
    batches = [next(whole) for _ in range(5)]
    for batch in batches[3:]:
        again = next(resumed)
        np.testing.assert_array_equal(again.proprio, batch.proprio)
        np.testing.assert_array_equal(again.images['wrist'], batch.images['wrist'])
