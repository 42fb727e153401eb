"""Check this project against numbers that published code computed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from safe_vla_ros.bench import golden_cogact, golden_pi
from safe_vla_ros.bench.golden_checks import Check, check_set
from safe_vla_ros.bench.golden_set import GoldenSetError, read_meta, read_set
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.whole_files import write_json

Family = Callable[[Path, dict[str, Any]], Iterator[Check]]


def _check_oft(path: Path, meta: dict[str, Any]) -> Iterator[Check]:  # noqa: ARG001
    return check_set(read_set(path))


_OFT = ''
FAMILIES: dict[str, Family] = {
    _OFT: _check_oft,
    'pi0': golden_pi.check_set,
    'pi05': golden_pi.check_set,
    'cogact': golden_cogact.check_set,
}
"""How to compare a set, by ``kind`` in its meta.json; sets of OpenVLA-OFT have none."""

_DESCRIPTION = """\
Run a checkpoint on recorded inputs, in float32 on the CPU, and compare every intermediate value
with what published code computed. Print the worst absolute difference of every quantity.

For OpenVLA-OFT that is the published SAFE-Pruner code: vision features, projected patches, unpruned
actions, key steps, matches, forecast, fused score, kept tokens, action states and actions. For pi0
and pi0.5 it is LeRobot's and openpi's: images, prompt, state, prefix, what the expert attends to,
every denoising step and the actions, unpruned and with given sets of kept tokens. For CogACT it is
CogACT's own: prompt, pixels, features, hidden states, attention, every denoising step, actions,
their ensemble, and the same with given sets of kept tokens."""

_EPILOG = """\
a set of OpenVLA-OFT is a directory with
  meta.json             settings (K, r, lambda, gamma, attn_slice, avg_layers, unnorm_key ...)
  checkpoint/           the official on-disk format, files plain or gzipped (.gz)
  inputs.npz            pixel_values, input_ids; optional images_u8, proprio_raw, proprio_norm
  vanilla.npz           unpruned pass
  safepruner_paper.npz  the published formula with a memory of visual tokens only
  debug.npz             optional: vision features and decoder input of step 0
  bugcase/              optional: replaced .pt files with their own safepruner_paper.npz

a set of pi0 or pi0.5 is a directory with
  meta.json             kind, sizes.v_heads, camera_slots, K, attn_layers, num_steps ...
  checkpoint/           LeRobot's format; plain or gzipped
  tokenizer/            tokenizer.json
  inputs.npz            image_<camera>, state, tasks, noise
  full.npz, pruned.npz  unpruned; with the kept tokens kept_0, kept_1 ... from layer K on
  openpi_checkpoint/, openpi.npz  optional: the same in openpi's format, through openpi's code

a set of CogACT is a directory with
  meta.json             kind: cogact, sizes, cfg_scale, ddim_steps, unnorm_key, K
  checkpoint/           config.json, dataset_statistics.json, checkpoints/*.pt; plain or gzipped
  tokenizer/            tokenizer.json
  inputs.npz            image, noise, tasks
  full.npz, pruned.npz  unpruned; with the kept tokens kept_0, kept_1 ... from layer K on

limits (absolute) of OpenVLA-OFT: indices and key steps must be equal; attention, forecast, score
and similarity 1e-5; patches and hidden states 1e-4; actions 5e-5; normalised inputs 1e-6. A wrong
epsilon in a norm or a tanh GELU changes the actions by 1e-4 to 9e-4.

limits of pi0 and pi0.5: ids, masks, positions, times and kept tokens must be equal; pixels 1e-6;
state 2e-6; attention and embeddings 1e-5; hidden states, keys and values 5e-5; velocities 6e-5;
actions 1.5e-5.

limits of CogACT: ids, kept tokens and timesteps must be equal; pixels 1e-6; attention, features and
embeddings 1e-5; hidden states 5e-5; the cognition token 2e-5; denoising 6e-5; actions 1e-5.

exit status: 0 all within limits, 1 some quantity is not, 2 a set cannot be read

example: python -m safe_vla_ros.bench.golden test/golden/set1 test/golden/pi05/set1"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.bench.golden',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('sets', nargs='+', type=Path, metavar='SETDIR', help='golden set to check')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='also write the differences to this JSON file'
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=1,
        help='CPU threads; 1 is the most repeatable (default: %(default)s)',
    )
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f'--threads is {options.threads}, allowed is 1 or more')
    torch.set_num_threads(options.threads)
    results: dict[str, list[Check]] = {}
    unreadable = []
    for path in options.sets:
        print(f'{path}')
        try:
            results[str(path)] = _report(path)
        except SafeVlaError as error:
            unreadable.append(path)
            print(f'ERROR {path}: {error}', file=sys.stderr)
    if options.json:
        write_json(options.json, _as_json(results))
    failed = sum(not check.passed for checks in results.values() for check in checks)
    compared = sum(len(checks) for checks in results.values())
    print(f'{compared - failed} passed, {failed} failed')
    if unreadable:
        return 2
    return 1 if failed else 0


def _report(path: Path) -> list[Check]:
    checks = []
    for check in _checks(path):
        checks.append(check)
        limit = f'{check.limit:.0e}' if check.limit else 'exact'
        verdict = 'ok' if check.passed else 'FAIL'
        print(f'  {verdict:4} {check.name:40} worst {check.worst:9.2e}  limit {limit}')
    for check in checks:
        if not check.passed:
            print(
                f'FAIL set {path}, step {check.step}, {check.name}: '
                f'difference {check.worst:.3e}, allowed {check.limit:.0e}',
                file=sys.stderr,
            )
    return checks


def _checks(path: Path) -> Iterator[Check]:
    meta = read_meta(path)
    kind = meta.get('kind', _OFT)
    if kind not in FAMILIES:
        known = ', '.join(name for name in FAMILIES if name)
        msg = f'{path}: kind is {kind!r}, known are {known}, and none for OpenVLA-OFT'
        raise GoldenSetError(msg)
    return FAMILIES[kind](path, meta)


def _as_json(results: dict[str, list[Check]]) -> dict[str, object]:
    return {
        path: {
            check.name: {
                'worst': check.worst,
                'limit': check.limit,
                'step': check.step,
                'passed': check.passed,
            }
            for check in checks
        }
        for path, checks in results.items()
    }


if __name__ == '__main__':
    sys.exit(main())
