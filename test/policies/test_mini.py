"""The bundled policy loads from data only and keeps to the seam."""

import json

import numpy as np
import pytest
import torch
from mini_policies import SENTENCES, write_untrained_policy
from safetensors.torch import load_file, save_file

from safe_vla_ros.errors import CheckpointError, NonFiniteError, ObservationError
from safe_vla_ros.policies import read_spec
from safe_vla_ros.policies.mini import encode_instruction, make_tokenizer, prepare_image
from safe_vla_ros.sim.closed_loop import load_bundled, resolve_episode
from safe_vla_ros.types import MessageHeader, Observation, PruningSettings

PROPRIO = (0.0, 0.2, 1.1, 3.14, 0.0, -0.1, 0.04, -0.04)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    return write_untrained_policy(tmp_path_factory.mktemp('policy'))


@pytest.fixture(scope='module')
def policy(directory):
    torch.set_num_threads(1)
    return load_bundled(str(directory))


def pruning_of(policy, method, keep_ratio=0.25):
    changes = {'pruning.method': method, 'pruning.keep_ratio': keep_ratio}
    return resolve_episode(policy.spec, changes).pruning


def make_observation(seed=0, *, text=SENTENCES[0], stamp_s=1.0, proprio=None):
    random = np.random.default_rng(seed)
    images = {
        'agentview': random.integers(0, 256, (256, 256, 3), dtype=np.uint8),
        'wrist': random.integers(0, 256, (256, 256, 3), dtype=np.uint8),
    }
    values = np.array(PROPRIO) if proprio is None else proprio
    return Observation(images, text, values, dict.fromkeys(images, MessageHeader.at(stamp_s)))


def test_a_step_gives_a_finite_chunk_with_its_record(policy):
    pruning = pruning_of(policy, 'none')
    chunk = policy.infer(make_observation(), policy.new_episode(), pruning)
    assert chunk.translation_m.shape == (8, 3)
    assert chunk.is_finite()
    assert np.all(chunk.rotation_rad == 0)
    assert dict(chunk.record.total) == {'agentview': 196, 'wrist': 64}
    assert chunk.record.pruning_ratio == 0
    assert chunk.record.stage_ms.keys() >= {'prepare', 'encode', 'decode'}


def test_keeping_every_token_changes_nothing(policy):
    plain = policy.infer(make_observation(), policy.new_episode(), pruning_of(policy, 'none'))
    memory = policy.new_episode()
    kept = pruning_of(policy, 'safe', 1.0)
    for stamp_s in (1.0, 1.2):
        chunk = policy.infer(make_observation(stamp_s=stamp_s), memory, kept)
        np.testing.assert_allclose(chunk.translation_m, plain.translation_m, atol=1e-7)


@pytest.mark.parametrize('method', ['safe', 'fastv', 'random'])
def test_a_pruned_step_keeps_a_quarter(policy, method):
    memory = policy.new_episode()
    pruning = pruning_of(policy, method)
    records = [
        policy.infer(make_observation(stamp_s=stamp), memory, pruning).record
        for stamp in (1.0, 1.2)
    ]
    assert sum(records[1].kept.values()) == 65
    assert records[1].decoder_macs < 0.7 * records[1].decoder_macs_full
    if method == 'safe':
        assert (records[0].key_step, records[0].reason) == (True, 'episode_start')
        assert records[1].similarity == pytest.approx(1.0, abs=1e-4)
        assert not records[1].key_step


def test_the_instruction_matters_and_any_text_is_taken(policy):
    pruning = pruning_of(policy, 'none')
    texts = [*SENTENCES, 'ouvre la fenêtre 🤖', 'go ' * 5000]
    chunks = [
        policy.infer(make_observation(text=text), policy.new_episode(), pruning) for text in texts
    ]
    assert all(chunk.is_finite() for chunk in chunks)
    assert not np.allclose(chunks[0].translation_m, chunks[1].translation_m)


def test_the_policy_sees_the_images_prepared_as_its_settings_say(directory):
    observation = make_observation()
    turned = make_observation()
    turned.images.update({name: image[::-1] for name, image in observation.images.items()})
    plain = load_bundled(str(directory))
    changed = load_bundled(str(directory), {'image.rotate_180': True, 'image.mirror': True})
    pruning = pruning_of(plain, 'none')
    expected = plain.infer(turned, plain.new_episode(), pruning)
    chunk = changed.infer(observation, changed.new_episode(), pruning)
    np.testing.assert_array_equal(chunk.translation_m, expected.translation_m)
    unprepared = plain.infer(observation, plain.new_episode(), pruning)
    assert not np.array_equal(chunk.translation_m, unprepared.translation_m)


def test_non_finite_proprioception_is_refused_and_the_memory_kept(policy):
    memory = policy.new_episode()
    pruning = pruning_of(policy, 'safe')
    policy.infer(make_observation(stamp_s=1.0), memory, pruning)
    bad = make_observation(stamp_s=2.0, proprio=np.array([np.nan, *PROPRIO[1:]]))
    with pytest.raises(NonFiniteError):
        policy.infer(bad, memory, pruning)
    assert memory.reference_stamp_s == 1.0


def test_proprioception_of_another_size_is_refused(policy):
    with pytest.raises(ObservationError, match='8 numbers'):
        policy.infer(
            make_observation(proprio=np.zeros(5)), policy.new_episode(), PruningSettings('none')
        )


def copy_policy(directory, out):
    out.mkdir()
    for file in directory.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    return out


@pytest.mark.parametrize('name', ['config.json', 'model.safetensors', 'tokenizer.json'])
def test_a_missing_file_is_named(directory, tmp_path, name):
    broken = copy_policy(directory, tmp_path / 'p')
    (broken / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_bundled(str(broken))


def test_a_wrong_shape_names_the_tensor(directory, tmp_path):
    broken = copy_policy(directory, tmp_path / 'p')
    weights = load_file(broken / 'model.safetensors')
    weights['placeholders'] = torch.zeros(3, 192)
    save_file(weights, broken / 'model.safetensors')
    with pytest.raises(CheckpointError, match=r"'placeholders' has shape \[3, 192\].*\[8, 192\]"):
        load_bundled(str(broken))


def test_a_missing_tensor_is_named(directory, tmp_path):
    broken = copy_policy(directory, tmp_path / 'p')
    weights = load_file(broken / 'model.safetensors')
    del weights['decoder.norm.weight']
    save_file(weights, broken / 'model.safetensors')
    with pytest.raises(CheckpointError, match=r'decoder\.norm\.weight'):
        load_bundled(str(broken))


def test_a_pickle_in_the_place_of_weights_is_refused(directory, tmp_path):
    broken = copy_policy(directory, tmp_path / 'p')
    torch.save({'weights': torch.zeros(2)}, broken / 'model.safetensors')
    with pytest.raises(CheckpointError, match='safetensors'):
        load_bundled(str(broken))


def test_truncated_weights_are_refused(directory, tmp_path):
    broken = copy_policy(directory, tmp_path / 'p')
    whole = (broken / 'model.safetensors').read_bytes()
    (broken / 'model.safetensors').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r'model\.safetensors'):
        load_bundled(str(broken))


def test_an_unknown_key_in_the_configuration_is_named(directory, tmp_path):
    broken = copy_policy(directory, tmp_path / 'p')
    config = json.loads((broken / 'config.json').read_text())
    (broken / 'config.json').write_text(json.dumps({**config, 'colour': 'blue'}))
    with pytest.raises(CheckpointError, match='colour'):
        read_spec(str(broken))


def test_instructions_have_a_fixed_length():
    tokenizer = make_tokenizer(['open the door'])
    assert len(encode_instruction(tokenizer, 'Open the DOOR', 5)) == 5
    assert encode_instruction(tokenizer, 'open', 3)[1:] == [0, 0]
    assert encode_instruction(tokenizer, 'unheard words', 2) == [1, 1]
    assert encode_instruction(tokenizer, 'open the door', 2) == encode_instruction(
        tokenizer, 'OPEN the', 2
    )


def test_images_are_averaged_when_they_shrink():
    image = np.zeros((224, 224, 3), np.uint8)
    image[::2] = 200
    prepared = prepare_image(image, 112)
    assert prepared.shape == (3, 112, 112)
    assert np.all(prepared == 100)


def test_the_saliency_of_every_layer_is_told_by_camera(directory):
    policy = load_bundled(str(directory))
    even = policy._model.decoder.layers[3].self_attn.q_proj
    with torch.no_grad():
        even.weight.zero_()
    by_layer = policy.saliency_by_layer(make_observation())
    layers = policy.spec.num_layers
    assert {name: grids.shape for name, grids in by_layer.items()} == {
        'agentview': (layers, 14, 14),
        'wrist': (layers, 8, 8),
    }
    flat = np.concatenate([grids.reshape(layers, -1) for grids in by_layer.values()], axis=1)
    assert (flat.sum(1) < 1).all()
    sequence = 260 + 1 + 20 + 8 + 1
    np.testing.assert_allclose(flat[3], 1 / sequence, rtol=1e-5)
    assert all(np.ptp(flat[layer]) > 1e-4 / sequence for layer in range(layers) if layer != 3)
