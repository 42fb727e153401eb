"""The speed benchmark, at sizes that a test can afford."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from transformers import GemmaConfig, LlamaConfig, SiglipVisionConfig

from safe_vla_ros.bench import load, speed
from safe_vla_ros.bench.load import measure_repeated
from safe_vla_ros.bench.random_checkpoint import write_checkpoint
from safe_vla_ros.bench.speed_models import OpenVlaSpeedModel, openvla_sizes
from safe_vla_ros.bench.speed_pi import PI05_LAYERS, PiSpeedModel, pi05_sizes
from safe_vla_ros.bench.speed_report import Sample, as_text, summarise
from safe_vla_ros.policies.openvla_config import NetworkSizes
from safe_vla_ros.policies.pi_network import build_network as build_pi_network
from safe_vla_ros.policies.vision_sizes import TowerSizes
from safe_vla_ros.pruning import make_episode
from safe_vla_ros.runtime import ManualClock
from safe_vla_ros.types import PruningSettings

CPU = torch.device('cpu')


def tiny_sizes(layers=4):
    def tower(kind, prefix, registers, layer_scale):
        return TowerSizes(
            kind=kind,
            prefix=f'vision_backbone.{prefix}',
            width=32,
            blocks=2,
            heads=2,
            mlp_width=48,
            patch=14,
            grid=4,
            registers=registers,
            layer_scale=layer_scale,
        )

    return NetworkSizes(
        towers=(
            tower('dinov2', 'featurizer', 4, layer_scale=True),
            tower('siglip', 'fused_featurizer', 0, layer_scale=False),
        ),
        means=((0.5, 0.5, 0.5),) * 2,
        stds=((0.5, 0.5, 0.5),) * 2,
        projector=(64, 96, 64, 64),
        llama=LlamaConfig(
            vocab_size=320,
            pad_token_id=0,
            hidden_size=64,
            intermediate_size=96,
            num_attention_heads=4,
            num_hidden_layers=layers,
        ),
    )


def frames(model):
    return next(speed._scene(model.cameras, model.image_size, 0))


def make_model(*, parallel):
    return OpenVlaSpeedModel(
        tiny_sizes(), parallel=parallel, prompt_tokens=6, device=CPU, dtype=torch.float32, seed=0
    )


@pytest.mark.parametrize('parallel', [True, False])
def test_a_key_step_costs_the_same_and_a_pruned_step_less_than_no_pruning(parallel):
    model, episode = make_model(parallel=parallel), make_episode()
    settings = PruningSettings(layer=2, refresh_threshold=-1.0)

    full = model.run(frames(model), make_episode(), PruningSettings(method='none', layer=2))
    key = model.run(frames(model), episode, settings)
    pruned = model.run(frames(model), episode, settings)

    assert key.output.key_step
    assert pruned.output.pruned
    assert full.macs == key.macs > pruned.macs
    assert ('generate' in full.stage_ms) != parallel
    for stage in ('total', 'prepare', 'vision', 'projector', 'decode', 'pruning'):
        assert pruned.stage_ms[stage] > 0


def test_the_real_sizes_are_those_of_the_published_checkpoints():
    sizes = openvla_sizes(32)

    towers = {tower.kind: tower for tower in sizes.towers}
    assert {tower.image_size for tower in sizes.towers} == {224}
    assert sizes.projector[0] == towers['dinov2'].width + towers['siglip'].width == 2176
    assert (sizes.llama.hidden_size, sizes.llama.intermediate_size) == (4096, 11008)
    assert (sizes.llama.num_hidden_layers, sizes.llama.rms_norm_eps) == (32, 1e-6)


def test_outside_macs_count_vision_projector_and_head():
    model = make_model(parallel=True)

    macs = model.outside_macs(frames(model))

    encode = sum(model._network.encode_macs(2).values())
    assert encode > 2 * 16 * (64 * 96 + 96 * 64 + 64 * 64)
    assert macs > encode


@pytest.mark.parametrize('kernels', ['plain', 'packed'])
def test_the_command_line_compares_both_arms_and_writes_json(tmp_path, capsys, kernels):
    file = tmp_path / 'deep' / 'speed.json'
    line = '--shape mini --layers 3 --layer 2 --steps 4 --key-every 4 --warm-up 1 --threads 1'

    status = speed.main([*line.split(), '--kernels', kernels, '--json', str(file)])

    assert status == 0
    summary = json.loads(file.read_text())
    stages = summary['stages']
    assert {kind: stages[kind]['decode']['count'] for kind in stages} == {
        'full': 4,
        'key': 1,
        'pruned': 3,
    }
    assert summary['weights'].startswith('random')
    assert summary['kernels'] == kernels
    assert {'processor', 'cores', 'threads', 'torch'} <= summary['machine'].keys()
    assert set(summary['speed_up']) == set(summary['ceiling_by_macs'])
    assert summary['ceiling_by_macs']['decoder_pruned_step'] > 1
    assert 'ceiling by multiply-accumulates' in capsys.readouterr().out

    assert speed.main(['--table', str(file), str(file)]) == 0
    table = capsys.readouterr().out
    row = next(line for line in table.splitlines() if line.startswith('| image to action'))
    assert row.count(f'**{summary["speed_up"]["end_to_end"]:.2f}x**') == 2


def test_methods_are_compared_in_one_run_each_with_its_own_ceiling(tmp_path, capsys):
    file = tmp_path / 'speed.json'
    line = (
        '--shape mini --layers 4 --layer 2 --steps 4 --key-every 4 --warm-up 1 --threads 1 --quiet'
    )

    assert speed.main([*line.split(), '--method', 'refresh', 'safe', '--json', str(file)]) == 0

    text = capsys.readouterr().out
    summary = json.loads(file.read_text())
    (safe,) = summary['others']
    assert (summary['method'], safe['method']) == ('refresh', 'safe')
    assert summary['stages']['full'] == safe['stages']['full']
    assert [s['stages']['pruned']['decode']['count'] for s in (summary, safe)] == [3, 3]
    # 65 visual and 30 other rows of 260 and 30 in every layer, against half of the layers.
    ceiling = summary['ceiling_by_macs']['decoder_pruned_step']
    assert ceiling == pytest.approx(290 / 95, rel=1e-3)
    assert ceiling > safe['ceiling_by_macs']['decoder_pruned_step']
    assert summary['stages']['pruned']['context']['median_ms'] > 0
    assert f'(ceiling by multiply-accumulates {ceiling:.2f}x)' in text

    assert speed.main(['--table', str(file)]) == 0
    assert '| method | `refresh` | `safe` |' in capsys.readouterr().out


def test_tokens_decoded_over_stored_keys_are_counted_over_all_of_them():
    model, episode = make_model(parallel=False), make_episode()
    settings = PruningSettings(method='refresh')
    model.run(frames(model), episode, settings)

    step = model.run(frames(model), episode, settings)

    length, width, mlp = step.output.length, 64, 96
    one = [4 * width**2 + 2 * (length + past + 1) * width + 3 * width * mlp for past in range(6)]
    assert step.output.pruned
    assert step.macs == step.output.macs + 4 * sum(one)


def test_a_table_of_another_file_is_refused(tmp_path, capsys):
    file = tmp_path / 'other.json'
    file.write_text('{"stages": 3}')

    assert speed.main(['--table', str(file)]) == 2

    assert f'{file} is not what --json writes' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        ('--keep-ratio 1', '--keep-ratio is 1.0, allowed is 0.05 to below 1'),
        ('--layer 32', '--layer is 32, allowed is 1..31'),
        ('--steps 0', '--steps is 0, allowed is 1 up'),
        ('--device tpu', "device is 'tpu', allowed are auto, cpu and cuda"),
        ('--shape mini --save x', '--save writes openvla-oft-7b, --shape is mini'),
    ],
)
def test_bad_arguments_are_named(capsys, arguments, sentence):
    with pytest.raises(SystemExit):
        speed.main(arguments.split())

    assert sentence in capsys.readouterr().err


def make_sample(arm, kind, decode, total, macs):
    stages = {'decode': decode, 'total': total, 'pruning': 0.01 * decode}
    return Sample(arm, kind, stages, macs, cpu_s=1.0, peak_gib=2.0)


def test_speed_ups_weigh_key_steps_at_their_share():
    samples = [make_sample('none', 'full', 100.0, 120.0, 1000)] * 4
    samples += [make_sample('safe', 'key', 104.0, 124.0, 1000)]
    samples += [make_sample('safe', 'pruned', 40.0, 60.0, 400)] * 3

    summary = summarise(samples, key_every=4, outside_macs=200, threads=2)

    assert summary['speed_up'] == pytest.approx(
        {
            'decoder_pruned_step': 2.5,
            'decoder_with_key_steps': 100 / (26 + 30),
            'end_to_end': 120 / (31 + 45),
        }
    )
    assert summary['ceiling_by_macs'] == pytest.approx(
        {
            'decoder_pruned_step': 2.5,
            'decoder_with_key_steps': 1000 / 550,
            'end_to_end': 1200 / 750,
        }
    )
    assert summary['pruning_share_of_pruned_decode'] == pytest.approx(0.01)
    assert '2.50x' in as_text(summary)


def test_a_disturbed_run_says_so():
    # One second of processor time is all that two threads have in half a second.
    def text(total):
        samples = [
            make_sample('none', 'full', 40.0, total, 1000),
            make_sample('safe', 'pruned', 40.0, total, 400),
        ]
        return as_text(summarise(samples, key_every=0, outside_macs=0, threads=2))

    assert 'WARNING' not in text(500.0)
    assert 'WARNING the run had only 5% of its threads' in text(10_000.0)


def test_a_random_checkpoint_is_loaded_like_a_real_one(tmp_path, monkeypatch):
    sizes, clock, load_model = tiny_sizes(), ManualClock(), load.openvla_oft.load_model

    def load_slowly(*arguments, **options):
        clock.advance(12.34)
        return load_model(*arguments, **options)

    monkeypatch.setattr(load.openvla_oft, 'load_model', load_slowly)
    monkeypatch.setattr(load, 'time', SimpleNamespace(perf_counter=clock.now_s))
    size = write_checkpoint(tmp_path, sizes, dtype=torch.bfloat16, seed=0, shard_bytes=100_000)
    result = load.measure_load(tmp_path, 'cpu')

    assert len(list(tmp_path.glob('model-*.safetensors'))) > 1
    # Stored and not loaded: the last vision blocks, their final norms, and lm_head.
    assert 0.4 < result['weights_gib'] * 2**30 / size < 1
    assert result['seconds'] == 12.3


def test_loading_again_and_again_leaves_nothing_behind(tmp_path):
    sizes = dataclasses.replace(tiny_sizes(), llama=wide_llama())
    write_checkpoint(tmp_path, sizes, dtype=torch.bfloat16, seed=0)

    result = measure_repeated(tmp_path, 'cpu', 4)

    assert [load['weights_gib'] for load in result['loads']] == [
        result['loads'][0]['weights_gib']
    ] * 4
    # One model at a time: one that stayed would add its weights to the next load's peak.
    peaks = [load['peak_gib'] for load in result['loads']]
    assert max(peaks) < peaks[0] + 0.5 * result['loads'][0]['weights_gib'], peaks


def wide_llama():
    """A decoder of some 130 MB, beside which the rest of the process does not count."""
    return LlamaConfig(
        vocab_size=320,
        pad_token_id=0,
        hidden_size=64,
        intermediate_size=400_000,
        num_attention_heads=4,
        num_hidden_layers=1,
    )


def tiny_pi_sizes():
    def gemma(width):
        return GemmaConfig(
            vocab_size=64,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            pad_token_id=0,
        )

    vision = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        vision_use_head=False,
    )
    sizes = pi05_sizes(4)
    return dataclasses.replace(sizes, vision=vision, prefix=gemma(48), expert=gemma(32))


def test_pi05_at_its_real_size_is_the_published_one():
    sizes = pi05_sizes(PI05_LAYERS)
    with torch.device('meta'):
        network = build_pi_network(sizes)

    def millions(module):
        return round(sum(p.numel() for p in module.parameters()) / 1e6)

    assert (millions(network.decoder), millions(network.vision)) == (2509, 412)
    assert network.grid**2 == 256


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_pi05_prunes_its_prefix_and_times_its_expert(dtype):
    model = PiSpeedModel(tiny_pi_sizes(), prompt_tokens=6, device=CPU, dtype=dtype, seed=0)
    episode, settings = make_episode(), PruningSettings(layer=2, refresh_threshold=-1.0)

    full = model.run(frames(model), make_episode(), PruningSettings(method='none', layer=2))
    key = model.run(frames(model), episode, settings)
    pruned = model.run(frames(model), episode, settings)

    assert full.macs == key.macs > pruned.macs
    assert pruned.output.layout.tokens_per_camera == (16, 16, 16)
    assert len(pruned.output.kept) == 12
    for stage in ('total', 'prepare', 'vision', 'decode', 'expert', 'pruning'):
        assert pruned.stage_ms[stage] > 0
    assert model.outside_macs(frames(model)) > 10 * 4 * 50 * 3 * 32 * 64


def test_the_command_line_times_pi05(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, 'pi05_sizes', lambda layers: tiny_pi_sizes())
    file = tmp_path / 'speed.json'
    line = '--shape pi05 --layers 4 --layer 2 --steps 2 --key-every 2 --warm-up 0 --threads 1'

    assert speed.main([*line.split(), '--quiet', '--json', str(file)]) == 0

    summary = json.loads(file.read_text())
    assert summary['stages']['pruned']['expert']['count'] == 1
    assert summary['ceiling_by_macs']['decoder_pruned_step'] > 1
