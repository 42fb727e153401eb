"""What pi0 and pi0.5 make of images, states and instructions, and the settings of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from openvla_checkpoints import edit_json
from pi_checkpoints import pi_settings, read_inputs, unpack_pi, write_options

from safe_vla_ros.errors import CheckpointError, ObservationError
from safe_vla_ros.policies import load_policy, read_spec
from safe_vla_ros.policies.action_expert import step_times
from safe_vla_ros.policies.pi_directory import open_directory
from safe_vla_ros.policies.pi_images import fit_image
from safe_vla_ros.policies.pi_prompt import PiPromptEncoder, state_bins
from safe_vla_ros.policies.pi_statistics import lerobot_affine, openpi_affine
from safe_vla_ros.pruning import PRUNER_NAMES
from safe_vla_ros.runtime.parameter_file import read_parameter_file
from safe_vla_ros.runtime.parameters import resolve
from safe_vla_ros.types import MessageHeader, Observation, PruningSettings

NONE = PruningSettings(method='none', layer=2)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return unpack_pi('pi05/set1', tmp_path_factory.mktemp('pi05'))


@pytest.fixture(scope='module')
def pi0(tmp_path_factory):
    return unpack_pi('pi0/set1', tmp_path_factory.mktemp('pi0'))


@pytest.fixture(scope='module')
def openpi(tmp_path_factory):
    return unpack_pi('pi05/set1', tmp_path_factory.mktemp('openpi'), 'openpi_checkpoint')


@pytest.fixture(scope='module')
def policy(checkpoint):
    return load_policy(str(checkpoint), pi_settings())


def observe(inputs, step=0, cameras=('image', 'image2'), **change):
    values = {
        'images': {name: inputs[f'image_{name}'][step] for name in cameras},
        'instruction': str(inputs['tasks'][step]),
        'proprio': inputs['state'][step].astype(np.float64),
        'image_headers': {name: MessageHeader.at(1.0) for name in cameras},
    }
    return Observation(**{**values, **change})


def encoder(directory, **options):
    write_options(directory, vision_heads=3, **options)
    return open_directory(directory).encoder()


def test_bins_are_not_clipped_below_and_end_at_255():
    state = np.array([-1.5, -1.0, -0.0001, 0.0, 0.9999, 1.0, 7.0], dtype=np.float32)

    assert state_bins(state) == [-1, 0, 127, 128, 255, 255, 255]


def test_the_prompt_holds_the_state_and_a_clean_instruction(checkpoint):
    text = encoder(checkpoint).text('  open_the\ndrawer ', np.array([-2.0, 0.0, 2.0]))

    assert text == 'Task: open the drawer, State: -1 128 255;\nAction: '


def test_the_state_can_be_padded_as_older_versions_did(checkpoint):
    text = encoder(checkpoint, pad_state=True).text('go', np.zeros(8) - 2.0)

    assert text.endswith('State: ' + ' '.join(['-1'] * 8 + ['128'] * 24) + ';\nAction: ')


def test_the_prompt_can_leave_the_state_out(checkpoint):
    ids = encoder(checkpoint, state_in_prompt=False).encode('open_the drawer', np.zeros(8))

    assert ids == encoder(checkpoint, state_in_prompt=False).encode('open the drawer')
    assert ids[0] == 2


def test_a_long_prompt_is_cut_at_its_end(checkpoint):
    whole = encoder(checkpoint, prompt_length=400).encode('push the plate ' * 20, np.zeros(8))
    cut = encoder(checkpoint).encode('push the plate ' * 20, np.zeros(8))

    assert len(whole) > len(cut) == 72
    assert cut == whole[:72]


def test_the_image_token_may_lie_behind_the_embedding_and_is_no_text(pi0):
    # It has the highest id of this tokenizer, as of the real one.
    facts = {'length': 48, 'with_state': False, 'clean': False}
    prompts = PiPromptEncoder(pi0 / 'tokenizer.json', vocabulary=510, **facts)

    assert max(prompts.encode('open the door')) < 510
    with pytest.raises(ObservationError, match='holds <image>, which is no text'):
        prompts.encode('open the <image>')
    with pytest.raises(CheckpointError, match='has ids up to 509; the decoder embeds 509'):
        PiPromptEncoder(pi0 / 'tokenizer.json', vocabulary=509, **facts)


def test_pi0_cleans_its_prompt_only_when_told(pi0):
    assert encoder(pi0).text('open_the door') == 'open_the door\n'
    assert encoder(pi0).text('open_the door\n') == 'open_the door\n'
    assert encoder(pi0, clean_prompt=True).text(' open_the door\n') == 'open the door'
    cleaned = encoder(pi0, clean_prompt=True).encode('open_the door')
    assert cleaned[-1] == encoder(pi0).encode('open the door')[-1]


def test_times_are_rounded_once_or_added_up():
    exact, added = step_times(10, 'exact'), step_times(10, 'added')

    assert exact == [float(np.float32(1.0 - i / 10)) for i in range(10)]
    assert added[2] == float(np.float32(0.79999995))
    assert step_times(8, 'exact') == step_times(8, 'added')


def test_an_image_is_centred_and_padded_with_black_or_as_older_versions_did():
    image = np.full((20, 11, 3), 255, dtype=np.uint8)

    fitted = fit_image(image, 10, resize='bilinear', padding=-1)
    older = fit_image(image, 10, resize='bilinear', padding=-3)

    assert fitted.shape == (3, 10, 10)
    assert torch.equal(fitted[0, 0], torch.tensor([-1.0] * 2 + [1.0] * 5 + [-1.0] * 3))
    assert torch.equal(older[0, 0], torch.tensor([-3.0] * 2 + [1.0] * 5 + [-3.0] * 3))


def test_an_image_is_shrunk_with_or_without_antialiasing():
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[::4] = 255

    smooth = fit_image(image, 10, resize='antialiased', padding=-1)
    sharp = fit_image(image, 10, resize='bilinear', padding=-1)

    assert smooth.std() < 0.1
    assert torch.equal(sharp, torch.full_like(sharp, -1.0))


def test_statistics_are_used_as_each_format_does():
    values = {'mean': np.array([1.0]), 'std': np.array([2.0])}
    ranges = {'q01': np.array([-1.0]), 'q99': np.array([3.0])}
    raw = np.array([3.0])

    lerobot = lerobot_affine('MEAN_STD', values, 1, 0.5, 'here')
    assert lerobot.normalize(raw) == pytest.approx([0.8])
    assert lerobot.unnormalize(np.array([0.8])) == pytest.approx([2.6])
    openpi = openpi_affine(values, quantiles=False, count=1, where='here')
    assert openpi.unnormalize(openpi.normalize(raw)) == pytest.approx([3.0], abs=1e-12)
    assert lerobot_affine('QUANTILES', ranges, 1, 0.0, 'here').normalize(raw) == [1.0]
    assert openpi_affine(ranges, quantiles=True, count=1, where='h').normalize(raw)[0] < 1.0
    assert lerobot_affine('IDENTITY', {}, 1, 0.0, 'here').normalize(raw) == [3.0]


def test_the_spec_says_what_the_checkpoint_says(checkpoint, openpi):
    write_options(checkpoint, vision_heads=3)
    spec, other = read_spec(str(checkpoint)), read_spec(str(openpi))

    assert (spec.kind, spec.cameras) == ('pi05', ('image', 'image2'))
    assert (spec.chunk_size, spec.execute_steps, spec.num_layers) == (10, 10, 4)
    assert spec.proprio_dim == 8
    assert other.cameras == ('base_0_rgb', 'left_wrist_0_rgb', 'right_wrist_0_rgb')
    assert (other.kind, other.unnorm_keys) == ('pi05', ('tiny',))


def test_the_policy_answers_in_physical_units_and_counts_its_operations(policy):
    inputs = read_inputs('pi05/set1')
    chunk = policy.infer(observe(inputs), policy.new_episode(), NONE)

    assert len(chunk) == 10
    assert chunk.record.total == {'image': 16, 'image2': 16}
    assert set(chunk.record.stage_macs) == {'vision', 'projector', 'expert'}
    assert {'prepare', 'encode', 'expert', 'decode'} <= set(chunk.record.stage_ms)


def test_fewer_cameras_than_slots_are_allowed_and_more_are_not(checkpoint):
    inputs = read_inputs('pi05/set1')
    one = load_policy(str(checkpoint), pi_settings(cameras=('image',)))

    assert one.infer(observe(inputs), one.new_episode(), NONE).record.total == {'image': 16}
    with pytest.raises(CheckpointError, match='takes 1 to 2'):
        load_policy(str(checkpoint), pi_settings(cameras=('a', 'b', 'c')))


@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        ({'cameras': ('image',)}, 'lacks the cameras image2'),
        ({'proprio': None}, 'takes 8 numbers of proprioception, got none'),
        ({'proprio': np.zeros(7)}, r'takes 8 numbers of proprioception, got \[7\]'),
        ({'proprio': np.full(8, np.nan)}, 'proprioception holds nan'),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(policy, change, sentence):
    observation = observe(read_inputs('pi05/set1'), **change)

    with pytest.raises(ObservationError, match=sentence):
        policy.infer(observation, policy.new_episode(), NONE)


def test_joint_actions_run_from_python_only(checkpoint, tmp_path_factory):
    sentence = 'action columns of joints; a robot is driven by 4 or 7'
    named = unpack_pi('pi05/set1', tmp_path_factory.mktemp('joints'))
    edit_json(named / 'config.json', action_feature_names=[f'joint_{i}' for i in range(7)])

    with pytest.raises(CheckpointError, match=sentence):
        load_policy(str(named), pi_settings())
    write_options(checkpoint, vision_heads=3, action_space='joints')
    with pytest.raises(CheckpointError, match=sentence):
        load_policy(str(checkpoint), pi_settings())
    write_options(checkpoint, vision_heads=3)
    six = unpack_pi('pi05/set2', tmp_path_factory.mktemp('six'))
    assert not open_directory(six).drives_end_effector


def test_the_order_of_the_cameras_is_a_setting(checkpoint):
    write_options(checkpoint, vision_heads=3, camera_slots=['image2', 'image'])

    assert read_spec(str(checkpoint)).cameras == ('image2', 'image')
    write_options(checkpoint, vision_heads=3)


def test_the_worked_robot_yaml_says_everything_that_a_checkpoint_does_not(checkpoint):
    path = Path(__file__).parents[2] / 'config' / 'pi05_libero.yaml'
    write_options(checkpoint, vision_heads=3)
    # The real one has 18 layers.
    spec = replace(read_spec(str(checkpoint)), num_layers=18)

    resolved = resolve(read_parameter_file(path), spec, pruner_names=PRUNER_NAMES)

    policy = load_policy(str(checkpoint), replace(resolved.policy, device='cpu'))
    assert resolved.control.execute_steps <= policy.spec.chunk_size
    assert resolved.policy.seed == 0
