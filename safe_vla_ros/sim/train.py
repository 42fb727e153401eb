"""Train the bundled policy on collected shards. An interrupted run continues where it stopped.

It computes in bfloat16 with weights in float32 beside it. --init starts from an earlier run, for
example after a round of DAgger; --out then is a new folder.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from safe_vla_ros.policies.mini import TOKENIZER_FILE, WEIGHTS_FILE, make_tokenizer, model_config
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.policies.spec import read_config
from safe_vla_ros.sim.batches import BatchMaker
from safe_vla_ros.sim.dataset import INPUT_SIZES_PX, Samples, load_samples
from safe_vla_ros.sim.losses import LossWeights, PolicyLoss
from safe_vla_ros.sim.policy_file import write_policy_file
from safe_vla_ros.sim.progress_bar import progress_bar
from safe_vla_ros.sim.sentences import vocabulary_sentences
from safe_vla_ros.whole_files import written_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer

    from safe_vla_ros.sim.losses import Batch

INSTRUCTION_LENGTH = 20
PATCH_SIZES_PX = {'agentview': 8, 'wrist': 12}
CHECKPOINT_EVERY = 250
_RESUME_FILE = 'resume.pt'
_EMA_DECAY = 0.997


def make_config(samples: Samples) -> MiniConfig:
    """Return the network's sizes with the proprioception statistics of the samples."""
    proprio = samples.proprio
    return MiniConfig(
        cameras=dict(INPUT_SIZES_PX),
        patch_sizes=dict(PATCH_SIZES_PX),
        vocab_size=make_tokenizer(vocabulary_sentences()).get_vocab_size(),
        instruction_length=INSTRUCTION_LENGTH,
        chunk_size=samples.opening.shape[2],
        action_dim=4,
        proprio_dim=proprio.shape[1],
        proprio_mean=[round(float(v), 6) for v in proprio.mean(0)],
        proprio_std=[round(float(v), 6) for v in proprio.std(0)],
    )


def export(
    model: MiniVla, weights: dict[str, torch.Tensor], tokenizer: Tokenizer, out: Path
) -> None:
    """Write a policy directory; the weights appear last and whole."""
    out.mkdir(parents=True, exist_ok=True)
    config = {'model_type': 'mini_vla', **asdict(model.config)}
    (out / 'config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
    tokenizer.save(str(out / TOKENIZER_FILE))
    if not (out / 'policy.yaml').exists():
        write_policy_file(out)
    with written_whole(out / WEIGHTS_FILE) as partial:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, partial)


class Trainer:
    """Trains with AdamW, a warm-up and a cosine; resumable.

    A copy in bfloat16 computes the gradients, and the weights in float32 take the steps: twice as
    fast on a CPU as autocast, and steps too small for bfloat16 are not lost.
    """

    def __init__(
        self,
        loss: PolicyLoss,
        tokenizer: Tokenizer,
        *,
        steps: int,
        rate: float,
        out: Path,
        compile_: bool,
    ) -> None:
        self._loss, self._tokenizer, self._steps, self._rate = loss, tokenizer, steps, rate
        self._path = out / _RESUME_FILE
        decay = [p for p in loss.parameters() if p.ndim > 1]
        rest = [p for p in loss.parameters() if p.ndim <= 1]
        groups = [{'params': decay, 'weight_decay': 0.02}, {'params': rest, 'weight_decay': 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
        self._half = _in_bfloat16(loss)
        self._forward = torch.compile(self._half) if compile_ else self._half
        self.average = {k: v.clone() for k, v in loss.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        if self._path.exists():
            self._resume()

    def _resume(self) -> None:
        state = torch.load(self._path, weights_only=True)
        self._loss.load_state_dict(state['loss'])
        self._optimizer.load_state_dict(state['optimizer'])
        self.average, self.step, self.seconds = state['average'], state['step'], state['seconds']

    def _save(self) -> None:
        state = {
            'loss': self._loss.state_dict(),
            'optimizer': self._optimizer.state_dict(),
            'average': self.average,
            'step': self.step,
            'seconds': self.seconds,
        }
        with written_whole(self._path) as partial:
            torch.save(state, partial)

    def _export(self) -> None:
        prefix = 'model.'
        weights = {k[len(prefix) :]: v for k, v in self.average.items() if k.startswith(prefix)}
        export(self._loss.model, weights, self._tokenizer, self._path.parent / 'policy')

    def _learning_rate(self) -> float:
        warm_up = min(100, self._steps // 10 + 1)
        if self.step < warm_up:
            return self._rate * (self.step + 1) / warm_up
        progress = (self.step - warm_up) / max(1, self._steps - warm_up)
        return self._rate * (0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * progress))))

    def _train_step(self, batch: Batch) -> float:
        rate = self._learning_rate()
        for group in self._optimizer.param_groups:
            group['lr'] = rate
        weights: list[torch.Tensor] = list(self._loss.parameters())
        copies: list[torch.Tensor] = list(self._half.parameters())
        with torch.no_grad():
            torch._foreach_copy_(copies, weights)
        images, proprio = self._loss.vary(batch)
        loss, action_loss = self._forward(images, proprio, batch)
        loss.backward()
        for weight, half in zip(weights, copies, strict=True):
            weight.grad = None if half.grad is None else half.grad.float()
            half.grad = None
        nn.utils.clip_grad_norm_(weights, 1.0)
        self._optimizer.step()
        decay = min(_EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self._loss.state_dict().items():
                self.average[name].lerp_(value, 1.0 - decay)
        return float(action_loss.detach())

    def run(self, batches: Iterator[Batch], validation: list[Batch]) -> None:
        """Train to the end, with a progress bar; afterwards the model has the averaged weights."""
        self._loss.train()
        with progress_bar() as progress:
            bar = progress.add_task('training', total=self._steps, completed=self.step, note='')
            recent: list[float] = []
            while self.step < self._steps:
                started = time.perf_counter()
                recent.append(self._train_step(next(batches)))
                self.seconds += time.perf_counter() - started
                self.step += 1
                note = f'action L1 {np.mean(recent[-50:]):.4f}, {self.seconds:.0f} s'
                progress.update(bar, completed=self.step, note=note)
                if self.step % CHECKPOINT_EVERY == 0 or self.step == self._steps:
                    self._save()
                    self._export()
                    progress.console.print(f'step {self.step}: {note}')
        self._loss.load_state_dict(self.average)
        print(f'validation action L1 {self._validate(validation):.4f}')

    @torch.no_grad()
    def _validate(self, batches: list[Batch]) -> float:
        self._loss.eval()
        losses = [self._loss(dict(b.images), b.proprio, b)[1] for b in batches]
        return float(np.mean([float(loss) for loss in losses]))


def _in_bfloat16(loss: PolicyLoss) -> PolicyLoss:
    """Return a copy that computes in bfloat16; the statistics of its inputs stay in float32."""
    half = copy.deepcopy(loss).bfloat16()
    half.model.proprio_mean = loss.model.proprio_mean.clone()
    half.model.proprio_std = loss.model.proprio_std.clone()
    return half


def train(options: argparse.Namespace) -> None:
    """Run the stages that the options ask for and export the policy."""
    torch.manual_seed(options.seed)
    samples = load_samples(options.data)
    config = make_config(samples)
    if options.init:
        config = model_config(read_config(options.init), options.init / 'config.json')
    model = MiniVla(config)
    if options.init:
        model.load_state_dict(load_file(options.init / WEIGHTS_FILE))
    tokenizer = make_tokenizer(vocabulary_sentences())
    sides = {name: grid[0] for name, grid in config.grids.items()}
    maker = BatchMaker(samples, tokenizer, INSTRUCTION_LENGTH, sides)
    held_out = samples.seed % 50 == 0
    training = maker.pairs(np.flatnonzero(~held_out))
    validation = maker.pairs(np.flatnonzero(held_out))
    print(f'{len(training)} pairs of frame and sentence to train, {len(validation)} to validate')
    checks = [
        maker.make(part) for part in np.array_split(validation, max(1, len(validation) // 64))
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    weights = LossWeights(asked=0.0) if options.no_asked_head else LossWeights()
    trainer = Trainer(
        PolicyLoss(model, weights),
        tokenizer,
        steps=options.steps,
        rate=options.rate,
        out=options.out,
        compile_=options.compile,
    )
    trainer.run(maker.stream(training, options.batch, options.seed, trainer.step), checks)
    print(f'wrote {options.out / "policy"}')


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m safe_vla_ros.sim.train',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--data', type=Path, nargs='+', required=True, help='folders with shards')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for checkpoints and the policy'
    )
    parser.add_argument('--init', type=Path, help='policy directory to start from')
    parser.add_argument('--steps', type=int, default=4000, help='training steps')
    parser.add_argument(
        '--no-asked-head', action='store_true', help='train without the head for the asked bowl'
    )
    parser.add_argument('--rate', type=float, default=8e-4, help='largest learning rate')
    parser.add_argument('--batch', type=int, default=32, help='samples per step')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--restart', action='store_true', help='delete --out and start again')
    parser.add_argument(
        '--no-compile', dest='compile', action='store_false', help='do not use torch.compile'
    )
    options = parser.parse_args(arguments)
    if options.restart and options.out.exists():
        shutil.rmtree(options.out)
    train(options)


if __name__ == '__main__':
    main()
