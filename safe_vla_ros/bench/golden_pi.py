"""The quantities of a golden set of pi0 or pi0.5, and how far ours may be from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from safe_vla_ros.policies.action_expert import DenoisedStep, Taps
from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.policies.attention import SaliencyTap
from safe_vla_ros.policies.decoder import OpenPass
from safe_vla_ros.policies.pi import load_model, padded_state
from safe_vla_ros.policies.pi_directory import open_directory
from safe_vla_ros.policies.pi_images import black_image, fit_image
from safe_vla_ros.policies.pi_model import PiPrediction, ReadAttention
from safe_vla_ros.policies.pi_options import PiOptions
from safe_vla_ros.pruning import Tap
from safe_vla_ros.types import LAST_ROW, TEXT_ROWS, PruningSettings

STATE = 2e-6
ATTENTION = 1e-5
EMBEDDINGS = 1e-5
STATES = 5e-5
VELOCITY = 6e-5
ACTIONS = 1.5e-5
_CHECKPOINT, _TOKENIZER, _OPENPI = 'checkpoint', 'tokenizer', 'openpi_checkpoint'
_IMAGES = 'observation.images.'

Array = NDArray[Any]
Add = Callable[[str, float, Values], None]


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
    openpi = (path / 'openpi.npz').exists()
    parts = [_CHECKPOINT, _TOKENIZER, *([_OPENPI] if openpi else [])]
    arrays = {name: read_arrays(path / f'{name}.npz') for name in ('inputs', 'full', 'pruned')}
    with unpacked_parts(path, parts) as unpacked:
        yield from check_files(unpacked, _digests(unpacked, meta))
        ledger = Ledger()
        runner = _Runner(unpacked / _CHECKPOINT, meta, arrays['inputs'])
        for step in range(runner.steps):
            _check_full(runner, arrays['full'], ledger, step)
            _check_pruned(runner, arrays['pruned'], ledger, step)
        sequences = ['full', 'pruned']
        if openpi:
            arrays['openpi'] = read_arrays(path / 'openpi.npz')
            runner = _Runner(unpacked / _OPENPI, meta, arrays['inputs'])
            for step in range(runner.steps):
                _check_openpi(runner, arrays['openpi'], ledger, step)
            sequences.append('openpi')
        yield from ledger.checks.values()
        for name in sequences:
            done = {key.removeprefix(f'{name}.') for key in ledger.checks if key.startswith(name)}
            yield Check(f'{name}.compared', EXACT, float(len(set(arrays[name]) - done)), 0)


def _digests(unpacked: Path, meta: dict[str, Any]) -> dict[str, str]:
    digests = {f'{_CHECKPOINT}/{name}': d for name, d in meta.get('sha256_unpacked', {}).items()}
    digest = meta.get('openpi', {}).get('sha256_model_safetensors')
    if digest and (unpacked / _OPENPI).is_dir():
        digests[f'{_OPENPI}/model.safetensors'] = digest
    return digests


class _Runner:
    """Runs the set's inputs through one of its checkpoints, in float32 on the CPU."""

    def __init__(self, checkpoint: Path, meta: dict[str, Any], inputs: Arrays) -> None:
        try:
            options = PiOptions(
                tokenizer=f'../{_TOKENIZER}',
                vision_heads=meta['sizes']['v_heads'],
                prompt_length=meta['tokenizer_max_length'],
                num_steps=meta['num_steps'],
            )
            slots = [name.removeprefix(_IMAGES) for name in meta['camera_slots']]
            self.pruning_layer: int = meta['K']
            self.attention_layers: list[int] = meta['attn_layers']
        except KeyError as error:
            msg = f'{checkpoint.parent}: meta.json has no key {error}'
            raise GoldenSetError(msg) from error
        missing = [key for key in ('state', 'tasks', 'noise') if key not in inputs]
        if missing:
            msg = f'{checkpoint.parent} lacks {", ".join(missing)} in inputs.npz'
            raise GoldenSetError(msg)
        self.directory = open_directory(checkpoint, options)
        self.model = load_model(self.directory, device='cpu', dtype='float32')
        self.encoder = self.directory.encoder()
        self.inputs = inputs
        self.slots = slots
        self.present = [i for i, name in enumerate(slots) if f'image_{name}' in inputs]
        self.tokens = self.model.network.grid**2

    @property
    def steps(self) -> int:
        return len(self.inputs['state'])

    @property
    def visual(self) -> Array:
        """Which of the set's visual columns are ours, in our order."""
        return np.concatenate([np.arange(self.tokens) + i * self.tokens for i in self.present])

    def rows(self, step: int) -> Array:
        """Which of the set's prefix rows are ours, in our order."""
        text = np.arange(len(self.prompt_ids(step))) + len(self.slots) * self.tokens
        return np.concatenate([self.visual, text])

    def state(self, step: int) -> Array:
        return self.directory.facts.state.normalize(self.inputs['state'][step])

    def prompt_ids(self, step: int) -> list[int]:
        return self.encoder.encode(str(self.inputs['tasks'][step]), self.state(step))

    def pixels(self, step: int) -> torch.Tensor:
        options, size = self.directory.options, self.directory.sizes.vision.image_size
        return torch.stack(
            [
                fit_image(
                    self.inputs[f'image_{self.slots[slot]}'][step],
                    size,
                    resize=str(options.image_resize),
                    padding=options.image_padding,
                )
                for slot in self.present
            ]
        )

    def slot_images(self, step: int) -> Array:
        images = [black_image(self.directory.sizes.vision.image_size)] * len(self.slots)
        for slot, pixels in zip(self.present, self.pixels(step), strict=True):
            images[slot] = pixels
        return torch.stack(images).numpy()

    def predict(
        self,
        step: int,
        pruner: ToldPruner,
        observe: list[DenoisedStep],
        read: ReadAttention | None = None,
    ) -> PiPrediction:
        facts, noise = self.directory.facts, torch.from_numpy(self.inputs['noise'][step])
        state = padded_state(self.state(step), facts.state_width) if facts.kind == 'pi0' else None
        return self.model.predict(
            self.pixels(step),
            self.prompt_ids(step),
            state,
            episode=NoisyEpisode(0, draw=noise.view),
            pruning=PruningSettings(),
            stamp_s=float(step),
            pruner=pruner,
            observe=observe.append,
            read=read,
        )

    def actions(self, prediction: PiPrediction) -> tuple[Array, Array]:
        """Return the first columns as denoised, and in physical units."""
        normalised = prediction.actions[:, : len(self.directory.facts.actions)]
        return normalised, self.directory.facts.actions.unnormalize(normalised)


class _ExpertAttention:
    """Reads what every row of the expert attends to, mean over heads, in some steps."""

    def __init__(self, layers: list[int], steps: tuple[int, ...]) -> None:
        self._layers = layers
        self._steps = steps
        self._taps: list[dict[int, SaliencyTap]] = []
        self._opened: OpenPass | None = None

    def __call__(self, step: int, opened: OpenPass) -> Taps:
        if step not in self._steps:
            return {}
        self._opened = opened
        taps = {
            # Only the columns differ between layers, when rows have left.
            layer: SaliencyTap(slice(None), self._columns(layer, opened), opened.stopwatch, _by_row)
            for layer in self._layers
        }
        self._taps.append(taps)
        return taps

    def answers(self, layer: int, total: int) -> list[Array]:
        """Return the attention of every step asked, [rows, N]; 0 for tokens that have left."""
        assert self._opened is not None
        kept, found = self._opened.rows.kept, []
        for taps in self._taps:
            answer = taps[layer].answer
            assert answer is not None
            values = np.zeros((answer.shape[1], total))
            columns = np.arange(total) if answer.shape[2] == total or kept is None else kept.numpy()
            values[:, columns] = answer[0].numpy()
            found.append(values)
        return found

    @staticmethod
    def _columns(layer: int, opened: OpenPass) -> slice:
        assert opened.cache is not None
        text = opened.rows.count - opened.rows.columns.stop
        return slice(0, opened.cache.layers[layer].keys.shape[2] - text)


def _by_row(probabilities: torch.Tensor, columns: slice) -> torch.Tensor:
    return probabilities[..., columns].mean(dim=0)


def _check_full(runner: _Runner, expected: Arrays, ledger: Ledger, step: int) -> None:
    add = _adder('full', expected, ledger, step)
    directory, model = runner.directory, runner.model
    network, rows = model.network, runner.rows(step)
    length = len(runner.slots) * runner.tokens + runner.encoder.length

    def spread(values: Array, filling: float = np.nan) -> Array:
        return _spread(values, rows, length, filling)

    _check_inputs(runner, add, step, length)
    with torch.inference_mode():
        prefix = network.assemble(network.encode(runner.pixels(step)), runner.prompt_ids(step))
    add('prefix_embs', EMBEDDINGS, spread(prefix[0].numpy()))

    steps: list[DenoisedStep] = []
    last = directory.num_steps - 1
    attention = _ExpertAttention(runner.attention_layers, (0, last))
    shallow = runner.pruning_layer - 1
    told = ToldPruner(taps={shallow: Tap(LAST_ROW)})
    note = _PrefixCache()
    with layer_outputs(network.decoder) as outputs:
        prediction = runner.predict(step, told, steps, read=_both(attention, note))
    for layer, values in enumerate(output[0].numpy() for output in outputs):
        add(f'prefix_hidden_{layer}', STATES, spread(values))
    add('prefix_final_norm', STATES, spread(prediction.output.hidden[0].numpy()))
    for layer, (keys, values) in enumerate(note.stored()):
        add(f'prefix_key_{layer}', STATES, spread(keys))
        add(f'prefix_value_{layer}', STATES, spread(values))
    everything = len(runner.slots) * runner.tokens
    total = len(runner.visual)

    def visual(values: Array) -> Array:
        filled = np.zeros((*values.shape[:-1], everything))
        filled[..., runner.visual] = values
        return filled

    add('prefix_attn_last_text', ATTENTION, visual(told.answers[shallow].numpy()))
    text = ToldPruner(taps={shallow: Tap(TEXT_ROWS)})
    runner.predict(step, text, [])
    add('prefix_attn_text_mean', ATTENTION, visual(text.answers[shallow].numpy()))
    by_layer = [attention.answers(layer, total) for layer in runner.attention_layers]
    read = visual(np.array(by_layer))
    action_rows = network.expert.action_rows(model.chunk_size)
    add('expert_attn', ATTENTION, read[:, :, action_rows])
    if action_rows.start:
        add('expert_attn_state_row', ATTENTION, read[:, :, 0])
    _check_denoising(runner, add, steps, prediction)
    if 'timesteps' in expected:
        times = np.array([one.time for one in steps], dtype=np.float32)
        ledger.add('full.timesteps', EXACT, step, times, expected['timesteps'])


def _check_inputs(runner: _Runner, add: Add, step: int, length: int) -> None:
    ids, rows = runner.prompt_ids(step), runner.rows(step)
    add('model_images', INPUTS, runner.slot_images(step))
    shown = np.isin(np.arange(len(runner.slots)), runner.present)
    add('model_image_mask', EXACT, shown)
    add('state_norm', STATE, runner.state(step))
    whole = runner.encoder.length
    add('token_ids', EXACT, np.array(ids + [0] * (whole - len(ids))))
    add('token_mask', EXACT, np.arange(whole) < len(ids))
    add('prefix_valid', EXACT, _spread(np.ones(len(rows)), rows, length, 0.0))
    add('prefix_position_ids', EXACT, _spread(np.arange(len(rows)), rows, length, -1.0))


def _check_denoising(
    runner: _Runner, add: Add, steps: list[DenoisedStep], prediction: PiPrediction
) -> None:
    add('velocity', VELOCITY, np.stack([one.velocity.numpy() for one in steps]))
    add('x_t', ACTIONS, np.stack([one.noisy.numpy() for one in steps]))
    add('x_final', ACTIONS, prediction.actions)
    normalised, actions = runner.actions(prediction)
    add('actions_norm', ACTIONS, normalised)
    add('actions', ACTIONS, actions)


def _check_pruned(runner: _Runner, expected: Arrays, ledger: Ledger, step: int) -> None:
    network, rows = runner.model.network, runner.rows(step)
    length = len(runner.slots) * runner.tokens + runner.encoder.length
    everything, total = len(runner.slots) * runner.tokens, len(runner.visual)
    last = runner.attention_layers[-1]
    for name in sorted(key for key in expected if key.startswith('kept_')):
        number = name.removeprefix('kept_')
        kept = torch.from_numpy(np.searchsorted(runner.visual, expected[name][step]))
        steps: list[DenoisedStep] = []
        attention = _ExpertAttention([last], (runner.directory.num_steps - 1,))
        told = ToldPruner(kept=kept, layer=runner.pruning_layer)
        with layer_outputs(network.decoder) as outputs:
            prediction = runner.predict(step, told, steps, read=attention)
        output = prediction.output
        plain = _adder('pruned', expected, ledger, step)

        def add(
            quantity: str, limit: float, values: Values, plain: Add = plain, number: str = number
        ) -> None:
            plain(f'{quantity}_{number}', limit, values)

        add('kept', EXACT, runner.visual[output.kept.numpy()])
        went_on = rows[output.positions.numpy()]
        layer = len(outputs) - 1
        add(
            f'prefix_hidden_{layer}',
            STATES,
            _spread(outputs[layer][0].numpy(), went_on, length, np.nan),
        )
        seen = np.zeros((runner.model.chunk_size, everything))
        action_rows = network.expert.action_rows(runner.model.chunk_size)
        seen[:, runner.visual] = attention.answers(last, total)[0][action_rows]
        add('expert_attn_last', ATTENTION, seen)
        _check_denoising(runner, add, steps, prediction)


def _check_openpi(runner: _Runner, expected: Arrays, ledger: Ledger, step: int) -> None:
    add = _adder('openpi', expected, ledger, step)
    length = len(runner.slots) * runner.tokens + runner.encoder.length
    _check_inputs(runner, add, step, length)
    steps: list[DenoisedStep] = []
    prediction = runner.predict(step, ToldPruner(), steps)
    _check_denoising(runner, add, steps, prediction)
    if 'timesteps' in expected:
        times = np.array([one.time for one in steps], dtype=np.float32)
        ledger.add('openpi.timesteps', EXACT, step, times, expected['timesteps'])


def _adder(sequence: str, expected: Arrays, ledger: Ledger, step: int) -> Add:
    def add(name: str, limit: float, got: Values) -> None:
        if name in expected:
            ledger.add(f'{sequence}.{name}', limit, step, got, expected[name][step])

    return add


class _PrefixCache:
    """Notes what the prefix has stored, on its way to the expert."""

    def __init__(self) -> None:
        self.opened: OpenPass | None = None

    def __call__(self, step: int, opened: OpenPass) -> Taps:  # noqa: ARG002
        self.opened = opened
        return {}

    def stored(self) -> list[tuple[Array, Array]]:
        assert self.opened is not None
        assert self.opened.cache is not None
        layers = self.opened.cache.layers
        return [(one.keys[0, 0].numpy(), one.values[0, 0].numpy()) for one in layers]


def _both(first: ReadAttention, second: ReadAttention) -> ReadAttention:
    def read(step: int, opened: OpenPass) -> Mapping[int, SaliencyTap]:
        return {**first(step, opened), **second(step, opened)}

    return read


def _spread(values: Array, rows: Array, length: int, filling: float) -> Array:
    """Put rows where the set has them, and fill the others."""
    filled = np.full((length, *values.shape[1:]), filling, dtype=np.float64)
    filled[rows] = values
    return filled
