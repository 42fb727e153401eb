"""Runs a Llama decoder layer by layer and drops visual tokens at layer K."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.attention import SaliencyTap
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import StepInput, StepReport, decoder_macs, make_pruner
from safe_vla_ros.types import ACTION_ROWS, PRUNING_STAGES, PruningSettings

if TYPE_CHECKING:
    from safe_vla_ros.pruning import EpisodeState


@dataclass(frozen=True)
class DecoderOutput:
    """What one pass of the decoder gives; batch size 1.

    Attributes:
        hidden: Hidden states of the kept rows after the final norm, [1, S', D].
        positions: Original positions of these rows, ascending int64 [S'].
        length: S, rows before pruning.
        visual: Positions of the visual tokens before pruning.
        kept: Kept visual indices, ascending int64 [M] in 0..N-1; all N on an unpruned pass.
        report: What the pruner says, with the scores and intermediate values.
        macs: Multiply-accumulates of the pass.
        macs_full: The same had nothing been pruned.
        cache: Keys and values by layer when asked for; deep layers hold the kept rows only.
        stopwatch: Time of the stages.
    """

    hidden: Tensor
    positions: Tensor
    length: int
    visual: slice
    kept: Tensor
    report: StepReport
    macs: int
    macs_full: int
    cache: DynamicCache | None
    stopwatch: StageTimer

    @property
    def pruned(self) -> bool:
        """Whether visual tokens were dropped."""
        return self.hidden.shape[1] < self.length

    @property
    def scores(self) -> Tensor | None:
        """Score of every visual token, float32 [N]; None when the method has none."""
        return self.report.scores

    @property
    def key_step(self) -> bool:
        """Whether the pass renewed the saliency reference."""
        return self.report.key_step

    @property
    def reason(self) -> str | None:
        """Why, one of ``types.REFRESH_REASONS``; None when it did not."""
        return self.report.reason

    @property
    def similarity(self) -> float | None:
        """kappa; None without a forecast."""
        return self.report.similarity

    @cached_property
    def stage_ms(self) -> dict[str, float]:
        """Milliseconds of ``decode`` (all of the pass), ``pruning`` (its share) and its parts.

        Waits for the device on CUDA.
        """
        stages = self.stopwatch.milliseconds()
        parts = {name: stages.get(name, 0.0) for name in PRUNING_STAGES}
        return {'decode': stages['decode'], 'pruning': sum(parts.values()), **parts}

    def rows(self, positions: slice) -> Tensor:
        """Hidden states of a run of original positions that pruning cannot touch.

        Args:
            positions: Slice of 0..S-1 before or after the visual tokens.

        Returns:
            [1, R, D].

        Raises:
            ValueError: The slice holds visual tokens.
        """
        start, stop, _ = positions.indices(self.length)
        if start >= self.visual.stop:
            dropped = self.length - self.hidden.shape[1]
            return self.hidden[:, start - dropped : stop - dropped]
        if stop <= self.visual.start:
            return self.hidden[:, start:stop]
        raise ValueError(
            f'rows {start}..{stop - 1} hold visual tokens '
            f'({self.visual.start}..{self.visual.stop - 1}), which pruning may have dropped'
        )


@torch.inference_mode()
def run_decoder(
    decoder: Any,
    inputs_embeds: Tensor,
    *,
    visual: slice,
    action_rows: slice,
    last_row: int,
    tokens_per_camera: tuple[int, ...],
    causal: bool,
    episode: EpisodeState,
    settings: PruningSettings,
    stamp_s: float,
    use_cache: bool = False,
) -> DecoderOutput:
    """Run one step: embeddings in, hidden states of the kept rows out.

    Layers 0..K-1 see every row, K..L-1 and the final norm the kept ones, at their original
    positions. Whether the step is a key step is decided before layer K, so nothing runs twice. The
    episode changes only when the whole pass has succeeded.

    Args:
        decoder: A ``LlamaModel`` on which ``use_tapping_attention`` was called.
        inputs_embeds: [1, S, D].
        visual: Positions of the N visual tokens, cameras one after another.
        action_rows: Positions of the query rows ``action``.
        last_row: Position of the query row ``last``.
        tokens_per_camera: Visual tokens by camera; sums to N.
        causal: Whether a row sees only itself and what stands before it; else it sees all.
        episode: The pruner's memory.
        settings: How to prune.
        stamp_s: Time of the observation, seconds.
        use_cache: Also return keys and values for ``decode_token``.

    Returns:
        Hidden states, what was kept, and what it cost.

    Raises:
        NonFiniteError: Tokens, attention or hidden states hold NaN or infinity.
        ParameterError: The settings do not fit the decoder.
        ValueError: The visual slice and the tokens per camera disagree.
    """
    length = inputs_embeds.shape[1]
    total = visual.stop - visual.start
    if sum(tokens_per_camera) != total:
        raise ValueError(f'{total} visual tokens, but {tokens_per_camera} tokens per camera')
    config = decoder.config
    layers = decoder.layers
    tokens = inputs_embeds[0, visual]
    device = inputs_embeds.device
    stopwatch = StageTimer(device)
    taps: dict[int, SaliencyTap] = {}
    cache = DynamicCache() if use_cache else None
    with stopwatch.stage('decode'):
        with stopwatch.stage('matching'):
            step = make_pruner(settings.method).begin(
                StepInput(tokens, tokens_per_camera, len(layers), settings, stamp_s), episode
            )
        hidden = inputs_embeds
        positions = torch.arange(length, device=device)
        rotary = decoder.rotary_emb(hidden, position_ids=positions[None])
        kept = None
        for index, layer in enumerate(layers):
            if index == settings.layer:
                with stopwatch.stage('selection'):
                    kept = step.select()
                if kept is not None:
                    with stopwatch.stage('gathers'):
                        # Everything that has one entry per row; there is no mask to rebuild,
                        # because order is kept and causality is a flag.
                        positions = torch.cat(
                            [
                                positions[: visual.start],
                                kept + visual.start,
                                positions[visual.stop :],
                            ]
                        )
                        hidden = hidden.index_select(1, positions)
                        rotary = tuple(table.index_select(1, positions) for table in rotary)
            rows = step.rows_at(index) if kept is None else None
            tap = None
            if rows is not None:
                asked = action_rows if rows == ACTION_ROWS else slice(last_row, last_row + 1)
                tap = taps[index] = SaliencyTap(asked, visual, stopwatch)
            hidden = layer(
                hidden,
                attention_mask=None,
                past_key_values=cache,
                position_embeddings=rotary,
                is_causal=causal,
                saliency_tap=tap,
            )
            if tap is not None:
                with stopwatch.stage('selection'):
                    step.observe(index, _answer(tap))
        hidden = decoder.norm(hidden)
        _check_finite(tokens, taps, hidden)
        with stopwatch.stage('selection'):
            report = step.finish()
    cost = {
        'layer': min(settings.layer, len(layers)),
        'num_layers': len(layers),
        'width': config.hidden_size,
        'mlp_width': config.intermediate_size,
    }
    return DecoderOutput(
        hidden=hidden,
        positions=positions,
        length=length,
        visual=visual,
        kept=torch.arange(total, device=device) if kept is None else kept,
        report=report,
        macs=decoder_macs(length, hidden.shape[1], **cost),
        macs_full=decoder_macs(length, length, **cost),
        cache=cache,
        stopwatch=stopwatch,
    )


@torch.inference_mode()
def decode_token(decoder: Any, embedding: Tensor, *, position: int, cache: DynamicCache) -> Tensor:
    """Decode one more token of a causal model after a pruned or unpruned prefill.

    Every layer attends to the rows that its own cache holds, so the cache may be ragged.

    Args:
        decoder: As in ``run_decoder``.
        embedding: [1, 1, D].
        position: Original position: S of the prefill for the first token, whatever was dropped.
        cache: From ``run_decoder(use_cache=True)``; grows by one row per layer.

    Returns:
        Hidden state after the final norm, [1, 1, D].
    """
    positions = torch.tensor([[position]], device=embedding.device)
    rotary = decoder.rotary_emb(embedding, position_ids=positions)
    hidden = embedding
    for layer in decoder.layers:
        hidden = layer(
            hidden, attention_mask=None, past_key_values=cache, position_embeddings=rotary
        )
    return decoder.norm(hidden)  # type: ignore[no-any-return]


def _answer(tap: SaliencyTap) -> Tensor:
    if tap.saliency is None:
        raise ValueError(
            'the decoder does not run tapping_attention: use_tapping_attention(decoder)'
        )
    return tap.saliency[0]


def _check_finite(tokens: Tensor, taps: dict[int, SaliencyTap], hidden: Tensor) -> None:
    """Name the first place that holds NaN or infinity; one look at the device when all is well."""
    places = [(f'attention of decoder layer {index}', _answer(tap)) for index, tap in taps.items()]
    places.append(('hidden states after the final norm', hidden))
    finite = torch.stack([torch.isfinite(values).all() for _, values in places])
    if bool(finite.all()):
        return
    where = places[finite.tolist().index(False)][0]
    if not bool(torch.isfinite(tokens).all()):
        where = 'visual tokens'
    raise NonFiniteError(f'{where}: NaN or infinity; the reference was left as it was')
