"""How much faster pruning makes a policy, against the same policy unpruned in the same run."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from safe_vla_ros.bench.load import measure_in_own_process
from safe_vla_ros.bench.machine import PeakMemory, describe_machine
from safe_vla_ros.bench.random_checkpoint import write_checkpoint
from safe_vla_ros.bench.speed_cogact import CogActSpeedModel, cogact_base_sizes
from safe_vla_ros.bench.speed_models import (
    SHAPES,
    MiniSpeedModel,
    OpenVlaSpeedModel,
    SpeedModel,
    openvla_sizes,
)
from safe_vla_ros.bench.speed_pi import PI05_LAYERS, PiSpeedModel, pi05_sizes
from safe_vla_ros.bench.speed_report import Sample, as_text, markdown_table, summarise
from safe_vla_ros.errors import ParameterError
from safe_vla_ros.policies.device import choose_device
from safe_vla_ros.policies.mini import model_config
from safe_vla_ros.policies.packed_linear import can_pack, pack_for_cpu, pack_linears
from safe_vla_ros.policies.registry import read_spec
from safe_vla_ros.policies.spec import find_policy, read_config
from safe_vla_ros.pruning import PRUNER_NAMES, make_episode
from safe_vla_ros.types import PruningSettings, UInt8Array
from safe_vla_ros.whole_files import write_json

BUNDLED_POLICY = 'mini_libero'
KEY_EVERY = {'safe': 12, 'refresh': 20, 'vla_cache': 20}
"""Steps per key step of the methods that have them; other methods have none."""

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16, 'float32': torch.float32}
_DESCRIPTION = """\
Build a policy at its real size with random weights, and run it on a sequence of moving camera
images unpruned and with each --method, interleaved step by step: A B C A B C. It needs no
checkpoint, and its output means nothing. All arms run the same driver, the same fused attention
(SDPA) and the same matrix kernels. Nothing materialises a whole attention matrix. Methods with key
steps have one every --key-every steps."""

_EPILOG = """\
A full 7B run needs 16 GiB of memory. With --layers the decoder is shorter: for development only.

examples:
  python -m safe_vla_ros.bench.speed --shape openvla-oft-7b --steps 12 --json speed.json
  python -m safe_vla_ros.bench.speed --method refresh safe --steps 20 --json speed.json
  python -m safe_vla_ros.bench.speed --shape openvla-7b --device cuda --steps 48
  python -m safe_vla_ros.bench.speed --shape cogact-base --device cuda --steps 48
  python -m safe_vla_ros.bench.speed --shape pi05 --steps 12
  python -m safe_vla_ros.bench.speed --shape mini --steps 120

Of pi05 the decoder is the prefix: the ten denoising steps are the stage expert."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parse(arguments)
    if options.table:
        return _print_table(options.table)
    if options.threads:
        torch.set_num_threads(options.threads)
    machine = describe_machine(options.device)
    if options.save:
        return _save(options, machine)
    model = _build(options)
    images = next(_scene(model.cameras, model.image_size, options.seed))
    outside = model.outside_macs(images)
    kernels = _set_kernels(model.module, options)
    samples = list(_run(model, options))
    compared = {
        method: {
            'method': method,
            **summarise(
                [sample for sample in samples if sample.arm in ('none', method)],
                key_every=options.key_every.get(method, 0),
                outside_macs=outside,
                threads=torch.get_num_threads(),
            ),
        }
        for method in options.method
    }
    first, *others = compared.values()
    summary = {
        'command': _command(),
        'weights': 'random; the outputs mean nothing',
        'shape': options.shape,
        'layers': options.layers,
        'dtype': options.dtype,
        'device': str(options.device),
        'kernels': kernels,
        'keep_ratio': options.keep_ratio,
        'pruning_layer': options.layer,
        'forecast_layers': list(options.forecast_layers),
        'saliency_layers': list(options.saliency_layers),
        'steps': options.steps,
        'machine': machine,
        **first,
        'others': others,
    }
    for one in compared.values():
        print(as_text({**summary, **one}))
    _write(options.json, summary)
    return 0


def _set_kernels(module: torch.nn.Module, options: argparse.Namespace) -> str:
    if options.kernels == 'packed':
        packed = pack_linears(module)
    elif options.kernels is None and options.shape != 'mini':
        packed = pack_for_cpu(module, device=options.device, dtype=DTYPES[options.dtype])
    else:
        packed = 0
    return 'packed' if packed else 'plain'


def _run(model: SpeedModel, options: argparse.Namespace) -> Iterator[Sample]:
    """Run all arms step by step; yields the steps after warming up."""
    arms = {
        method: PruningSettings(
            method=method,
            keep_ratio=options.keep_ratio,
            layer=options.layer,
            forecast_layers=options.forecast_layers,
            saliency_layers=options.saliency_layers,
            # Key steps come by the clock here: with random weights the tests mean nothing.
            refresh_threshold=-1.0,
            max_staleness=0.0,
        )
        for method in ('none', *options.method)
    }
    episodes = {arm: make_episode() for arm in arms}
    memory = PeakMemory(options.device)
    scene = _scene(model.cameras, model.image_size, options.seed)
    for index in range(-options.warm_up, options.steps):
        images = next(scene)
        for arm, arm_settings in arms.items():
            if arm in options.key_every and index % options.key_every[arm] == 0:
                episodes[arm].clear('service')
            memory.restart()
            start_cpu = time.process_time()
            step = model.run(images, episodes[arm], arm_settings)
            cpu_s = time.process_time() - start_cpu
            kind = 'full' if arm == 'none' else ('pruned' if step.output.pruned else 'key')
            sample = Sample(arm, kind, step.stage_ms, step.macs, cpu_s, memory.gib())
            name = f'step {index + 1}/{options.steps}' if index >= 0 else 'warm-up'
            if not options.quiet:
                print(
                    f'{name:<12} {arm:<7} {kind:<7} {sample.decoder_ms:10.1f} ms decoder '
                    f'{step.stage_ms["total"]:10.1f} ms in all',
                    flush=True,
                )
            if index >= 0:
                yield sample


def _save(options: argparse.Namespace, machine: dict[str, object]) -> int:
    """Write a checkpoint of random weights, then load it in a process of its own."""
    sizes = openvla_sizes(options.layers)
    size = write_checkpoint(options.save, sizes, dtype=DTYPES[options.dtype], seed=options.seed)
    print(f'{size / 2**30:.2f} GiB of random weights written to {options.save}')
    loading = measure_in_own_process(options.save, options.device.type)
    for name, value in loading.items():
        print(f'{name:<22} {value}')
    _write(options.json, {'command': _command(), 'machine': machine, 'loading': loading})
    return 0


def _write(path: Path | None, summary: dict[str, object]) -> None:
    if path is None:
        return
    write_json(path, summary)
    print(f'written to {path}')


def _print_table(paths: Sequence[Path]) -> int:
    summaries: list[dict[str, Any]] = []
    for path in paths:
        try:
            summary = json.loads(path.read_text(encoding='utf-8'))
            markdown_table([summary])
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f'ERROR {path} is not what --json writes: {error!r}', file=sys.stderr)
            return 2
        summaries.append(summary)
    print(markdown_table(summaries), end='')
    return 0


def _command() -> str:
    return 'python -m safe_vla_ros.bench.speed ' + ' '.join(sys.argv[1:])


def _scene(cameras: int, size: int, seed: int) -> Iterator[list[UInt8Array]]:
    """Yield frames of a textured scene that pans by two pixels a step, with sensor noise."""
    generator = np.random.default_rng(seed)
    span = size + 256
    coarse = generator.integers(0, 256, (cameras, 24, 24, 3), dtype=np.uint8)
    scenes = [cv2.resize(view, (span, span), interpolation=cv2.INTER_CUBIC) for view in coarse]
    shift = 0
    while True:
        frames = []
        for view in scenes:
            frame = view[:size, shift : shift + size].astype(np.int16)
            frame += generator.integers(-4, 5, frame.shape, dtype=np.int16)
            frames.append(np.ascontiguousarray(frame.clip(0, 255).astype(np.uint8)))
        yield frames
        shift = (shift + 2) % 256


def _build(options: argparse.Namespace) -> SpeedModel:
    dtype = DTYPES[options.dtype]
    if options.shape == 'mini':
        path = find_policy(BUNDLED_POLICY)
        config = model_config(read_config(path), path / 'config.json')
        config = replace(config, num_hidden_layers=options.layers)
        return MiniSpeedModel(config, device=options.device, dtype=dtype, seed=options.seed)
    if options.shape == 'cogact-base':
        return CogActSpeedModel(
            cogact_base_sizes(options.layers),
            prompt_tokens=options.prompt_tokens,
            device=options.device,
            dtype=dtype,
            seed=options.seed,
        )
    if options.shape == 'pi05':
        return PiSpeedModel(
            pi05_sizes(options.layers),
            prompt_tokens=options.prompt_tokens,
            device=options.device,
            dtype=dtype,
            seed=options.seed,
        )
    return OpenVlaSpeedModel(
        openvla_sizes(options.layers),
        parallel=options.shape == 'openvla-oft-7b',
        prompt_tokens=options.prompt_tokens,
        device=options.device,
        dtype=dtype,
        seed=options.seed,
    )


def _real_layers(shape: str) -> int:
    if shape == 'mini':
        return read_spec(BUNDLED_POLICY).num_layers
    return PI05_LAYERS if shape == 'pi05' else 32


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.speed',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        '--shape',
        choices=SHAPES,
        default='openvla-oft-7b',
        help='model sizes (default: %(default)s)',
    )
    add('--dtype', choices=DTYPES, help='number format (default: bfloat16; float32 for mini)')
    add('--device', default='auto', help='auto, cpu or cuda (default: %(default)s)')
    add(
        '--method',
        nargs='+',
        choices=[n for n in PRUNER_NAMES if n != 'none'],
        default=['safe'],
        help='methods to compare with no pruning, all in one run (default: safe)',
    )
    add(
        '--keep-ratio',
        type=float,
        default=0.25,
        help='share of visual tokens computed (default: %(default)s)',
    )
    add('--layer', type=int, help="K (default: 3; the policy's own for mini)")
    add('--steps', type=int, default=12, help='timed steps per arm (default: %(default)s)')
    add(
        '--key-every',
        type=int,
        help='steps per key step (default: 12 for safe, 20 for methods that renew)',
    )
    add('--warm-up', type=int, default=2, help='untimed steps first (default: %(default)s)')
    add('--prompt-tokens', type=int, default=34, help='length of the prompt (default: %(default)s)')
    add('--layers', type=int, help='decoder layers (default: the real number)')
    add('--threads', type=int, help="CPU threads (default: torch's own choice)")
    add(
        '--kernels',
        choices=('plain', 'packed'),
        help='matrix kernels of both arms (default: as the policies load: packed weights for '
        'OpenVLA, CogACT and pi0.5 in bfloat16 on a CPU, otherwise plain)',
    )
    add('--seed', type=int, default=0)
    add('--json', type=Path, metavar='FILE', help='also write everything to this JSON file')
    add(
        '--save',
        type=Path,
        metavar='DIR',
        help='write an OpenVLA-OFT checkpoint of random weights to this folder, load it in a '
        'process of its own, and report memory and time instead of speed',
    )
    add(
        '--table',
        type=Path,
        nargs='+',
        metavar='FILE',
        help='measure nothing; print the table of the docs from files that --json wrote',
    )
    add('--quiet', action='store_true', help='print no line per step')
    options = parser.parse_args(arguments)
    try:
        options.device = choose_device(options.device)
    except ParameterError as error:
        parser.error(str(error))
    mini = options.shape == 'mini'
    options.dtype = options.dtype or ('float32' if mini else 'bfloat16')
    own = read_spec(BUNDLED_POLICY).pruning if mini else {}
    options.layer = own.get('layer', 3) if options.layer is None else options.layer
    options.forecast_layers = () if options.layers else tuple(own.get('forecast_layers', ()))
    options.saliency_layers = () if options.layers else tuple(own.get('saliency_layers', ()))
    options.layers = options.layers or _real_layers(options.shape)
    for name in ('steps', 'key_every', 'prompt_tokens'):
        given = getattr(options, name)
        if given is not None and given < 1:
            parser.error(f'--{name.replace("_", "-")} is {given}, allowed is 1 up')
    options.key_every = {
        method: options.key_every or every
        for method, every in KEY_EVERY.items()
        if method in options.method
    }
    if not 0.05 <= options.keep_ratio < 1.0:
        parser.error(f'--keep-ratio is {options.keep_ratio}, allowed is 0.05 to below 1')
    if not options.save and not 1 <= options.layer < options.layers:
        parser.error(f'--layer is {options.layer}, allowed is 1..{options.layers - 1}')
    if options.save and options.shape != 'openvla-oft-7b':
        parser.error(f'--save writes openvla-oft-7b, --shape is {options.shape}')
    if options.kernels == 'packed':
        if options.device.type != 'cpu':
            parser.error(f'--kernels packed is for the CPU, --device is {options.device}')
        if not can_pack(DTYPES[options.dtype]):
            parser.error(f'--kernels packed: torch has none for {options.dtype} on this processor')
    return options


if __name__ == '__main__':
    raise SystemExit(main())
