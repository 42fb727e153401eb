"""The quantities of a golden set, step by step, and how far ours may be from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safe_vla_ros.bench.golden_set import (
    BUGCASE,
    GoldenRunner,
    GoldenSet,
    GoldenSetError,
    changed_files,
    unpacked,
)
from safe_vla_ros.policies.openvla_policy import Prediction
from safe_vla_ros.pruning import EpisodeState, SaliencyReference, kept_count
from safe_vla_ros.types import PruningSettings

EXACT = 0.0
ATTENTION = 1e-5
STATES = 1e-4
ACTIONS = 5e-5
INPUTS = 1e-6

Values = NDArray[Any] | float


@dataclass(frozen=True)
class Check:
    """One quantity over all steps.

    Attributes:
        name: ``sequence.quantity``.
        limit: Largest absolute difference allowed; 0 for integers.
        worst: Largest absolute difference seen; infinite for another shape or NaN elsewhere.
        step: Where it was.
    """

    name: str
    limit: float
    worst: float
    step: int

    @property
    def passed(self) -> bool:
        """Whether the worst difference is within the limit."""
        return self.worst <= self.limit


def difference(got: Values, expected: Values) -> float:
    """Return the largest absolute difference; infinite when shapes or NaN positions differ."""
    ours, theirs = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if ours.shape != theirs.shape or not np.array_equal(np.isnan(ours), np.isnan(theirs)):
        return float('inf')
    known = ~np.isnan(ours)
    return float(np.abs(ours[known] - theirs[known]).max(initial=0.0))


class Ledger:
    """Collects the worst difference of every quantity that the set has."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}

    def add(self, name: str, limit: float, step: int, got: Values, expected: Values) -> None:
        """Compare one quantity at one step."""
        worst = difference(got, expected)
        known = self.checks.get(name)
        if known is None or worst > known.worst:
            self.checks[name] = Check(name, limit, worst, step)


def check_files(folder: Path, digests: Mapping[str, str]) -> Iterator[Check]:
    """Check that files are those that the set was made with; nothing without digests."""
    if digests:
        yield Check('checkpoint.files', EXACT, float(len(changed_files(folder, digests))), 0)


def check_set(golden: GoldenSet) -> Iterator[Check]:
    """Compare every quantity of a set.

    Args:
        golden: The set.

    Yields:
        One check per quantity, in the order of the computation.

    Raises:
        SafeVlaError: The set or its checkpoint cannot be used.
    """
    with unpacked(golden) as checkpoint:
        yield from check_files(checkpoint, golden.meta.get('sha256', {}))
        yield from _check_vanilla(golden, checkpoint)
        yield from _check_pruned(golden, checkpoint, 'safepruner_paper')
    if (golden.path / BUGCASE).is_dir():
        with unpacked(golden, BUGCASE) as checkpoint:
            yield from _check_pruned(golden, checkpoint, f'{BUGCASE}/safepruner_paper')


def _check_vanilla(golden: GoldenSet, checkpoint: Path) -> Iterator[Check]:
    ledger = Ledger()
    expected = golden.expected('vanilla.npz')
    runner = GoldenRunner(golden, checkpoint, action_slice='shifted')
    model = runner.model
    nothing = PruningSettings(method='none', layer=golden.settings['K'])
    _check_debug(golden, runner, ledger)
    for step in range(golden.steps):

        def add(name: str, limit: float, got: Values | None, step: int = step) -> None:
            if got is not None and name in expected:
                ledger.add(f'vanilla.{name}', limit, step, got, expected[name][step])

        if 'images_u8' in golden.inputs:
            wanted = golden.inputs['pixel_values'][step]
            ledger.add('inputs.pixel_values', INPUTS, step, runner.prepared_pixels(step), wanted)
        proprio = runner.normalized_proprio(step)
        if proprio is not None and 'proprio_norm' in golden.inputs:
            wanted = golden.inputs['proprio_norm'][step]
            ledger.add('inputs.proprio_norm', INPUTS, step, proprio, wanted)
        with torch.inference_mode():
            add('projected_patches', STATES, model.network.encode(runner.pixels(step)).numpy())
            token = model.proprio_token(runner.proprio(step))
        add('proprio_token', STATES, None if token is None else token[0].numpy())
        model.action_slice = 'shifted'
        prediction = runner.predict(step, EpisodeState(), nothing)
        add('action_hidden', STATES, prediction.states.numpy())
        add('norm_actions', ACTIONS, prediction.actions)
        add('actions', ACTIONS, runner.normalizers.unnormalize(prediction.actions))
        model.action_slice = 'oft'
        prediction = runner.predict(step, EpisodeState(), nothing)
        add('norm_actions_oftread', ACTIONS, prediction.actions)
    yield from ledger.checks.values()


def _check_debug(golden: GoldenSet, runner: GoldenRunner, ledger: Ledger) -> None:
    """Compare the towers and the decoder's input of step 0."""
    expected = golden.expected('debug.npz')
    model = runner.model
    with torch.inference_mode():
        features = model.network.vision.tower_features(runner.pixels(0))
        sequence = model.network.assemble(
            model.network.encode(runner.pixels(0)),
            runner.prompt_ids,
            proprio=model.proprio_token(runner.proprio(0)),
            placeholders=model.chunk_size * model.action_dim,
        )
    for tower, values in zip(model.network.vision.sizes, features, strict=True):
        name = {'dinov2': 'dino'}.get(tower.kind, tower.kind) + '_features'
        if name in expected:
            ledger.add(f'vision.{name}', STATES, 0, values.numpy(), expected[name])
    if 'vanilla_inputs_embeds' in expected:
        got, wanted = sequence.embeddings[0].numpy(), expected['vanilla_inputs_embeds']
        ledger.add('vanilla.inputs_embeds', STATES, 0, got, wanted)


def _check_pruned(golden: GoldenSet, checkpoint: Path, sequence: str) -> Iterator[Check]:
    ledger = Ledger()
    expected = golden.expected(f'{sequence}.npz')
    runner = GoldenRunner(golden, checkpoint, action_slice='shifted')
    episode = EpisodeState()
    for step in range(golden.steps if expected else 0):
        prediction = runner.predict(step, episode, golden.pruning())
        got = _pruned_quantities(prediction, episode, golden)
        got['actions'] = (ACTIONS, runner.normalizers.unnormalize(prediction.actions))
        for name, (limit, values) in got.items():
            if name in expected:
                ledger.add(f'{sequence}.{name}', limit, step, values, expected[name][step])
    yield from ledger.checks.values()


def _pruned_quantities(
    prediction: Prediction, episode: EpisodeState, golden: GoldenSet
) -> dict[str, tuple[float, Values]]:
    """Return limit and value by name; what a step does not have is -1 or NaN, as in the files."""
    output = prediction.output
    trace, reference = output.report.trace, episode.reference
    if trace is None or not isinstance(reference, SaliencyReference):
        msg = 'the pruner gave no intermediate values'
        raise GoldenSetError(msg)
    total = output.visual.stop - output.visual.start
    kept = kept_count(total, golden.pruning().keep_ratio)
    layers = len(golden.layers())
    unknown = np.full(total, np.nan)
    pruned = not output.key_step

    def known(values: torch.Tensor | None, missing: NDArray[Any]) -> NDArray[Any]:
        return missing if values is None else values.numpy()

    early = trace.saliency.get(golden.settings['K'] - 1) if pruned else None
    return {
        'is_keyframe': (EXACT, float(output.key_step)),
        'match_index': (EXACT, known(trace.match_index, np.full(total, -1))),
        'match_score': (ATTENTION, known(trace.match_score, unknown)),
        'forecast': (ATTENTION, known(trace.forecast, np.full((layers, total), np.nan))),
        'layer0_attn': (ATTENTION, known(trace.saliency.get(0), unknown)),
        'cos_sim': (ATTENTION, np.nan if output.similarity is None else output.similarity),
        'early_attn': (ATTENTION, known(early, unknown)),
        'fused': (ATTENTION, known(output.scores if pruned else None, unknown)),
        'kept_visual': (EXACT, output.kept.numpy() if pruned else np.full(kept, -1)),
        'seq_len_after': (EXACT, float(output.hidden.shape[1])),
        'cached_attention': (ATTENTION, reference.saliency.numpy()),
        'action_hidden': (STATES, prediction.states.numpy()),
        'norm_actions': (ACTIONS, prediction.actions),
    }
