"""The golden sets, step by step, and a checker that notices what it must notice."""

import json
import shutil

import numpy as np
import pytest
from openvla_checkpoints import GOLDEN, edit_json

from safe_vla_ros.bench import golden_pi
from safe_vla_ros.bench.golden import main
from safe_vla_ros.bench.golden_checks import check_set, difference
from safe_vla_ros.bench.golden_set import read_meta, read_set, unpack_checkpoint
from safe_vla_ros.policies.action_expert import step_times
from safe_vla_ros.policies.pi_network import PiNetwork

STEPS = 3
SEQUENCE = 'safepruner_paper'
QUANTITIES = {
    'is_keyframe',
    'match_index',
    'match_score',
    'forecast',
    'layer0_attn',
    'cos_sim',
    'early_attn',
    'fused',
    'kept_visual',
    'seq_len_after',
    'cached_attention',
    'action_hidden',
    'norm_actions',
    'actions',
}


@pytest.fixture(scope='module', params=['set1', 'set2'])
def checks(request):
    return {check.name: check for check in check_set(read_set(GOLDEN / request.param))}


@pytest.fixture
def short_set(tmp_path):
    """Set 2 cut to its first steps, to be tampered with."""
    path = tmp_path / 'short'
    path.mkdir()
    shutil.copytree(GOLDEN / 'set2' / 'checkpoint', path / 'checkpoint')
    shutil.copy(GOLDEN / 'set2' / 'meta.json', path)
    for name in ('inputs', 'vanilla', SEQUENCE):
        with np.load(GOLDEN / 'set2' / f'{name}.npz') as content:
            cut = {key: value[:STEPS] for key, value in content.items()}
        np.savez(path / f'{name}.npz', **cut)
    return path


def edit_settings(path, **changes):
    settings = json.loads((path / 'meta.json').read_text())['settings'] | changes
    edit_json(path / 'meta.json', settings=settings)


def failures(path):
    return {
        check.name.rpartition('.')[2]: check
        for check in check_set(read_set(path))
        if not check.passed
    }


def check_pi_set(path):
    return list(golden_pi.check_set(path, read_meta(path)))


def cut_pi_set(path):
    """Write the first step of a set of pi0.5, without openpi's part."""
    source = GOLDEN / 'pi05' / 'set1'
    shutil.copy(source / 'meta.json', path)
    for part in ('checkpoint', 'tokenizer'):
        shutil.copytree(source / part, path / part)
    for name in ('inputs', 'full', 'pruned'):
        with np.load(source / f'{name}.npz') as content:
            cut = {k: v if k == 'timesteps' else v[:1] for k, v in content.items()}
        np.savez(path / f'{name}.npz', **cut)
    return path


def double_text(network, visual, ids, assemble=PiNetwork.assemble):
    prefix = assemble(network, visual, ids).clone()
    prefix[:, len(visual) :] *= 2.0
    return prefix


def test_every_quantity_of_a_golden_set_is_within_its_limit(checks):
    outside = [check for check in checks.values() if not check.passed]
    assert not outside


def test_every_quantity_of_a_golden_set_is_compared(checks):
    compared = {name.partition('.')[2] for name in checks if name.startswith(f'{SEQUENCE}.')}
    assert compared == QUANTITIES
    vanilla = {'norm_actions', 'actions', 'action_hidden', 'norm_actions_oftread'}
    assert {f'vanilla.{name}' for name in vanilla} <= checks.keys()
    assert {'vision.dino_features', 'vision.siglip_features'} <= checks.keys()


def test_a_memory_that_crashes_the_published_code_is_handled():
    names = [check.name for check in check_set(read_set(GOLDEN / 'set1'))]
    assert {f'bugcase/{SEQUENCE}.{name}' for name in QUANTITIES} <= set(names)


def test_a_set_with_fewer_steps_and_files_is_checked_too(short_set):
    assert not failures(short_set)


def test_plain_checkpoint_files_serve_as_well_as_compressed_ones(short_set):
    plain = short_set.with_name('plain')
    plain.mkdir()
    unpack_checkpoint(short_set, plain)
    shutil.rmtree(short_set / 'checkpoint')
    plain.rename(short_set / 'checkpoint')
    assert not failures(short_set)


def test_a_wrong_rms_epsilon_is_noticed(short_set):
    config = json.loads((short_set / 'checkpoint' / 'config.json').read_text())
    edit_json(
        short_set / 'checkpoint' / 'config.json',
        text_config=config['text_config'] | {'rms_norm_eps': 1e-5},
    )
    assert {'files', 'norm_actions'} <= failures(short_set).keys()


def test_a_tanh_gelu_in_the_towers_is_noticed(short_set, monkeypatch):
    monkeypatch.setattr('safe_vla_ros.policies.vision._ACTIVATION', 'gelu_pytorch_tanh')
    assert 'norm_actions' in failures(short_set)


@pytest.mark.parametrize(
    ('changes', 'quantity'),
    [
        ({'r': 0.49}, 'kept_visual'),
        ({'gamma': 0.95}, 'is_keyframe'),
        ({'lambda': 0.4}, 'fused'),
        ({'attn_slice': '-57:-1'}, 'early_attn'),
        ({'avg_layers': [0, 3]}, 'forecast'),
        ({'normalization': 'bounds'}, 'actions'),
    ],
)
def test_a_wrong_setting_is_noticed(short_set, changes, quantity):
    edit_settings(short_set, **changes)
    assert quantity in failures(short_set)


def test_the_command_names_set_step_and_quantity_and_fails(short_set, capsys, tmp_path):
    with np.load(short_set / f'{SEQUENCE}.npz') as content:
        arrays = dict(content)
    arrays['actions'][2, 0, 0] += 1e-4
    np.savez(short_set / f'{SEQUENCE}.npz', **arrays)
    report = tmp_path / 'report.json'
    assert main([str(short_set), '--json', str(report)]) == 1
    output = capsys.readouterr()
    assert f'FAIL set {short_set}, step 2, {SEQUENCE}.actions: difference 1.0' in output.err
    assert '1 failed' in output.out
    written = json.loads(report.read_text())[str(short_set)]
    assert [name for name, entry in written.items() if not entry['passed']] == [
        f'{SEQUENCE}.actions'
    ]


def test_layers_may_be_written_as_the_published_code_reads_them(short_set):
    edit_settings(short_set, avg_layers='0-3,5')
    assert not failures(short_set)


def test_the_command_succeeds_on_a_sound_set(short_set, capsys):
    assert main([str(short_set)]) == 0
    assert ' 0 failed' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['meta.json', 'inputs.npz', 'checkpoint'])
def test_a_directory_that_is_not_a_set_is_an_error(short_set, capsys, name):
    target = short_set / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert main([str(short_set)]) == 2
    assert name in capsys.readouterr().err


def test_help_teaches_the_format_and_the_limits(capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    text = capsys.readouterr().out
    for word in ('meta.json', 'safepruner_paper.npz', 'exit status', 'limits', 'example'):
        assert word in text


@pytest.mark.parametrize(
    ('got', 'expected', 'worst'),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.5),
        ([float('nan')], [float('nan')], 0.0),
        ([float('nan')], [0.0], float('inf')),
        ([1.0], [1.0, 1.0], float('inf')),
        ([], [], 0.0),
    ],
)
def test_the_worst_difference_counts_shape_and_nan_as_infinite(got, expected, worst):
    assert difference(np.array(got), np.array(expected)) == worst


@pytest.mark.parametrize('name', ['pi05/set1', 'pi05/set2', 'pi0/set1'])
def test_pi_does_what_its_published_codes_did(name):
    checks = {check.name: check for check in check_pi_set(GOLDEN / name)}

    assert not [check for check in checks.values() if not check.passed]
    sequences = {'full', 'pruned', *({'openpi'} if name.endswith('set1') else ())}
    assert {f'{sequence}.compared' for sequence in sequences} <= checks.keys()
    assert {'full.expert_attn', 'full.x_t', 'pruned.actions_0'} <= checks.keys()


@pytest.mark.parametrize(
    ('place', 'slip'),
    [
        ('action_expert.step_times', lambda steps, _: step_times(steps, 'added')),
        ('pi_network.PiNetwork.assemble', double_text),
    ],
)
def test_slips_in_pi_are_noticed(place, slip, monkeypatch, tmp_path):
    path = cut_pi_set(tmp_path)
    monkeypatch.setattr(f'safe_vla_ros.policies.{place}', slip)

    assert [check for check in check_pi_set(path) if not check.passed]


def test_a_set_of_an_unknown_kind_is_an_error(tmp_path, capsys):
    (tmp_path / 'meta.json').write_text('{"kind": "act"}')

    assert main([str(tmp_path)]) == 2
    assert "kind is 'act', known are pi0, pi05" in capsys.readouterr().err
