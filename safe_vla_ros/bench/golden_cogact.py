"""The quantities of a golden set of CogACT, and how far ours may be from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safe_vla_ros.bench.golden_checks import EXACT, INPUTS, Check, Ledger, Values, check_files
from safe_vla_ros.bench.golden_pruner import ToldPruner
from safe_vla_ros.bench.golden_set import (
    Arrays,
    GoldenSetError,
    layer_outputs,
    read_arrays,
    unpacked_parts,
)
from safe_vla_ros.policies import cogact
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.cogact_config import CogActOptions, open_cogact, read_sizes
from safe_vla_ros.policies.cogact_model import CogActPrediction
from safe_vla_ros.policies.ddim import DenoisedStep
from safe_vla_ros.policies.image_preparation import ImagePreparation, resize_bicubic
from safe_vla_ros.pruning import Tap
from safe_vla_ros.runtime.playback import COGACT_ENSEMBLE, ChunkPlayer
from safe_vla_ros.types import ActionChunk, Float64Array, PruningRecord, PruningSettings

ATTENTION = 1e-5
EMBEDDINGS = 1e-5
STATES = 5e-5
COGNITION = 2e-5
DENOISING = 6e-5
ACTIONS = 1e-5
_FILES = ('inputs', 'full', 'pruned')
_PERIOD_S = 0.2
_NOTHING = PruningRecord(
    method='none',
    total={},
    kept={},
    key_step=False,
    reason=None,
    similarity=None,
    threshold=0.0,
    scores={},
    kept_masks={},
    stage_ms={},
    decoder_macs=0,
    decoder_macs_full=0,
)


def check_set(path: Path, meta: dict[str, Any]) -> Iterator[Check]:
    """Compare every quantity of a set.

    Args:
        path: The set's directory.
        meta: Its meta.json.

    Yields:
        One check per quantity, in the order of the computation.

    Raises:
        SafeVlaError: The set or its checkpoint cannot be used.
    """
    arrays = {name: read_arrays(path / f'{name}.npz') for name in _FILES}
    with unpacked_parts(path) as unpacked:
        yield from check_files(unpacked / 'checkpoint', meta.get('sha256_unpacked', {}))
        runner = _Runner(unpacked / 'checkpoint', meta, arrays['inputs'])
        ledger = Ledger()
        for step in range(runner.steps):
            _check_full(runner, arrays['full'], ledger, step)
            _check_pruned(runner, arrays['pruned'], ledger, step, meta['K'])
        _check_ensembles(arrays['full'], ledger)
        yield from ledger.checks.values()
        untouched = set(arrays['full']) - {name.partition('.')[2] for name in ledger.checks}
        yield Check('full.compared', EXACT, float(len(untouched)), 0)


class _Runner:
    """Runs the set's inputs through its checkpoint, in float32 on the CPU."""

    def __init__(self, checkpoint: Path, meta: dict[str, Any], inputs: Arrays) -> None:
        try:
            sizes = meta['sizes']
            options = CogActOptions(
                cfg_scale=meta['cfg_scale'],
                ddim_steps=meta['ddim_steps'],
                tokenizer='../tokenizer',
                vision_heads=(sizes['d_heads'], sizes['s_heads']),
                llm_heads=sizes['heads'],
                dit_heads=meta['dit']['heads'],
            )
            self._unnorm_key: str = meta['unnorm_key']
        except KeyError as error:
            msg = f'{checkpoint.parent}: meta.json has no key {error}'
            raise GoldenSetError(msg) from error
        opened = open_cogact(checkpoint, options)
        self.sizes = read_sizes(opened, options)
        self.model = cogact.load_model(opened, options, self.sizes, device='cpu', dtype='float32')
        self.normalizers = cogact.read_action_bounds(opened, self._unnorm_key)
        vocabulary = self.sizes.network.llama.vocab_size
        self._encoder = cogact.make_encoder(checkpoint, options, vocabulary)
        self._inputs = inputs

    @property
    def steps(self) -> int:
        return len(self._inputs['image'])

    def prompt_ids(self, step: int) -> list[int]:
        return self._encoder.encode(str(self._inputs['tasks'][step]))

    def pixels(self, step: int) -> torch.Tensor:
        vision = self.model.network.vision
        prepare = ImagePreparation(vision.image_size, resize=resize_bicubic)
        image = prepare(self._inputs['image'][step])
        return vision.normalize(torch.from_numpy(image)[None])

    def predict(
        self, step: int, pruner: ToldPruner, steps: list[DenoisedStep] | None = None
    ) -> CogActPrediction:
        noise = torch.from_numpy(self._inputs['noise'][step])
        return self.model.predict(
            self.pixels(step),
            self.prompt_ids(step),
            None,
            episode=NoisyEpisode(0, draw=noise.view),
            pruning=PruningSettings(),
            stamp_s=float(step),
            observe=None if steps is None else steps.append,
            pruner=pruner,
        )


def _check_full(runner: _Runner, expected: Arrays, ledger: Ledger, step: int) -> None:
    def add(name: str, limit: float, got: Values) -> None:
        if name in expected:
            ledger.add(f'full.{name}', limit, step, got, expected[name][step])

    model = runner.model
    network, layers = model.network, model.network.decoder.config.num_hidden_layers
    pixels, ids = runner.pixels(step), runner.prompt_ids(step)
    add('input_ids', EXACT, _padded(np.array(ids), expected['input_ids'].shape[1], -1))
    add('pixel_values', INPUTS, pixels[0].numpy())
    with torch.inference_mode():
        add('vision_features', EMBEDDINGS, network.vision(pixels)[0].numpy())
        patches = network.encode(pixels)
        sequence = network.assemble(patches, ids)
    add('projected_patches', EMBEDDINGS, patches.numpy())
    length = expected['inputs_embeds'].shape[1]
    add('inputs_embeds', EMBEDDINGS, _padded(sequence.embeddings[0].numpy(), length))
    add('seq_len', EXACT, float(sequence.embeddings.shape[1]))

    asked = ToldPruner(taps={layer: Tap('action') for layer in range(layers)})
    steps: list[DenoisedStep] = []
    with layer_outputs(network.decoder) as outputs:
        prediction = runner.predict(step, asked, steps)
    for layer, output in enumerate(outputs):
        add(f'hidden_{layer}', STATES, _padded(output[0].numpy(), length))
    add('cognition', COGNITION, prediction.states[0].numpy())
    add('cognition_attn', ATTENTION, _by_layer(asked))
    everyone = ToldPruner(taps={layer: Tap('all') for layer in range(layers)})
    runner.predict(step, everyone)
    add('all_rows_mean_attn', ATTENTION, _by_layer(everyone))

    add('ddim_x', DENOISING, np.stack([one.actions.numpy() for one in steps]))
    add('ddim_eps_cond', DENOISING, np.stack([one.conditional.numpy() for one in steps]))
    without = [one.unconditional for one in steps if one.unconditional is not None]
    add('ddim_eps_uncond', DENOISING, np.stack([values.numpy() for values in without]))
    add('ddim_eps_cfg', DENOISING, np.stack([one.noise.numpy() for one in steps]))
    if 'ddim_t' in expected:
        timesteps = np.array([one.timestep for one in steps])
        ledger.add('full.ddim_t', EXACT, step, timesteps, expected['ddim_t'])
    add('norm_actions_raw', ACTIONS, prediction.raw_actions)
    add('norm_actions', ACTIONS, prediction.actions)
    add('actions', ACTIONS, runner.normalizers.unnormalize(prediction.actions))
    guidance, model.guidance = model.guidance, 1.0
    prediction = runner.predict(step, ToldPruner())
    model.guidance = guidance
    add('actions_nocfg', ACTIONS, runner.normalizers.unnormalize(prediction.actions))


def _check_pruned(runner: _Runner, expected: Arrays, ledger: Ledger, step: int, layer: int) -> None:
    for name in sorted(key for key in expected if key.startswith('kept_')):
        number = name.removeprefix('kept_')
        kept = torch.from_numpy(expected[name][step].astype(np.int64))
        prediction = runner.predict(step, ToldPruner(kept=kept, layer=layer))
        for quantity, limit, got in (
            ('kept', EXACT, prediction.output.kept.numpy()),
            ('cognition', COGNITION, prediction.states[0].numpy()),
            ('norm_actions_raw', ACTIONS, prediction.raw_actions),
            ('norm_actions', ACTIONS, prediction.actions),
            ('actions', ACTIONS, runner.normalizers.unnormalize(prediction.actions)),
        ):
            key = f'{quantity}_{number}'
            if key in expected:
                ledger.add(f'pruned.{key}', limit, step, got, expected[key][step])


def _check_ensembles(expected: Arrays, ledger: Ledger) -> None:
    """Play the set's own actions, a new chunk after every action, as the published policy does."""
    for name in sorted(key for key in expected if key.startswith('ensembled_h')):
        played = _play(expected['actions'], int(name.removeprefix('ensembled_h')))
        for step, (got, wanted) in enumerate(zip(played, expected[name], strict=True)):
            ledger.add(f'full.{name}', ACTIONS, step, got, wanted)


def _play(chunks: Float64Array, horizon: int) -> Iterator[Float64Array]:
    player = ChunkPlayer()
    for step, actions in enumerate(chunks):
        now_s = 100.0 + step * _PERIOD_S
        player.advance(now_s)
        player.splice(
            ActionChunk(actions[:, :3], actions[:, 3:6], actions[:, 6], _NOTHING),
            stamp_s=now_s,
            period_s=_PERIOD_S,
            blending=COGACT_ENSEMBLE,
            ensemble_horizon=horizon,
        )
        opening = player.opening() or 0.0
        yield np.append(player.next_twist(_PERIOD_S) * _PERIOD_S, opening)


def _by_layer(pruner: ToldPruner) -> NDArray[Any]:
    return np.stack([answer.numpy() for _, answer in sorted(pruner.answers.items())])


def _padded(values: NDArray[Any], length: int, filling: float = np.nan) -> NDArray[Any]:
    padded = np.full((length, *values.shape[1:]), filling, dtype=np.float64)
    padded[: len(values)] = values
    return padded
