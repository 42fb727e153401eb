"""Runs a Llama decoder layer by layer, with as many rows as the pruning method lets go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.attention import CACHE_ARGUMENT, ContextWrite, SaliencyTap
from safe_vla_ros.policies.pass_rows import PassRows
from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning import (
    KeyValueContext,
    PassPlan,
    Pruner,
    PrunerStep,
    SequenceLayout,
    StepInput,
    StepReport,
    Tap,
    host,
    make_pruner,
    pass_macs,
)
from safe_vla_ros.types import PRUNING_STAGES, PruningSettings

if TYPE_CHECKING:
    from safe_vla_ros.pruning import EpisodeState


@dataclass(frozen=True)
class DecoderOutput:
    """What one pass of the decoder gives; batch size 1.

    Attributes:
        hidden: Hidden states of the kept rows after the final norm, [1, S', D].
        positions: Original positions of these rows, ascending int64 [S'].
        layout: Where everything stood before pruning.
        kept: Visual indices whose rows went through every layer, ascending int64 [M] in 0..N-1; all
            N on an unpruned pass.
        report: What the pruner says, with the scores and intermediate values.
        layer_keys: Keys that the rows of each layer attended to.
        macs: Multiply-accumulates of the pass.
        macs_full: The same had nothing been pruned.
        cache: Keys and values by layer when asked for: those that the layer's rows attended to.
        context_bytes: Size of the keys and values that outlive the step; 0 for a method without.
        stopwatch: Time of the stages.
        key_bias: Added to the attention scores of the cached keys, float32 by layer; None where
            none stands for more than itself.
    """

    hidden: Tensor
    positions: Tensor
    layout: SequenceLayout
    kept: Tensor
    report: StepReport
    layer_keys: tuple[int, ...]
    macs: int
    macs_full: int
    cache: DynamicCache | None
    stopwatch: StageTimer
    context_bytes: int = 0
    key_bias: tuple[Tensor | None, ...] = ()

    @property
    def pruned(self) -> bool:
        """Whether not every visual token went through every layer."""
        return len(self.kept) < self.layout.total

    @property
    def length(self) -> int:
        """S, rows before pruning."""
        return self.layout.length

    @property
    def visual(self) -> slice:
        """Positions of the visual tokens before pruning."""
        return self.layout.visual

    @property
    def scores(self) -> Tensor | None:
        """Score of every visual token, float32 [N]; None when the method has none."""
        return self.report.scores

    @property
    def key_step(self) -> bool:
        """Whether the pass renewed the method's memory as a whole."""
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
        return self.hidden[:, self.layout.place(positions, self.hidden.shape[1])]


@dataclass(frozen=True)
class LateTap:
    """What rows that another module runs are still to be asked at one layer.

    Attributes:
        tap: What the method wants to know.
        columns: Where the visual tokens stand among the layer's stored keys.
        spread: Gives every visual token its place: from [V] of the columns to [N].
    """

    tap: Tap
    columns: slice
    spread: Callable[[Tensor], Tensor]


class OpenPass:
    """A pass whose layers have run; ``finish`` makes it count.

    Between the two, whoever runs the rows that the decoder does not have (an action expert over a
    prefix) answers the taps of ``late_taps`` with ``observe``.

    Attributes:
        rows: The rows in the stream; their hidden states are those after the final norm.
        cache: Keys and values by layer when asked for.
        biases: What is added to the scores of each layer's keys, float32 [S'] or None, by layer.
        late_taps: What is still to be read, by layer; empty when the decoder has all rows.
        stopwatch: Time of the stages.
    """

    def __init__(
        self,
        decoder: Any,
        step: PrunerStep,
        step_input: StepInput,
        stopwatch: StageTimer,
        context: KeyValueContext | None,
    ) -> None:
        self.cache: DynamicCache | None = None
        self.biases: list[Tensor | None] = []
        self.late_taps: dict[int, LateTap] = {}
        self.stopwatch = stopwatch
        self._step = step
        self._input = step_input
        self._context = context
        self._answers: dict[int, Tensor] = {}
        self._probed: list[tuple[int, int]] = []
        self._executed: list[tuple[int, int]] = []
        self._config = decoder.config
        embeddings = step_input.embeddings[None]
        positions = torch.arange(step_input.layout.length, device=embeddings.device)
        self.rows = PassRows(
            embeddings,
            decoder.rotary_emb(embeddings, position_ids=positions[None]),
            step_input.layout,
            context=context is not None,
        )

    def probe(self, decoder: Any) -> None:
        """Run every layer once more than the plan's own pass needs, for what it wants to know."""
        before = OpenPass(decoder, self._step, self._input, self.stopwatch, None)
        before.run(decoder, PassPlan(taps=self._step.plan.probe), None)
        self._probed = before._executed
        self._answers = before._answers

    def run(self, decoder: Any, plan: PassPlan, cache: DynamicCache | None) -> None:
        """Run every layer and the final norm."""
        step, rows, stopwatch = self._step, self.rows, self.stopwatch
        if plan.moves and self._context is not None:
            with stopwatch.stage('context'):
                self._move(decoder, self._context, step.moved())
        for index, layer in enumerate(decoder.layers):
            if index in plan.selections:
                with stopwatch.stage('selection'):
                    selection = step.select(index)
                with stopwatch.stage('gathers'):
                    rows.narrow(selection)
            tap = self._tap(plan.taps[index], index) if index in plan.taps else None
            rows.hidden = layer(
                rows.hidden,
                attention_mask=rows.mask,
                position_embeddings=rows.rotary,
                is_causal=self._input.layout.causal,
                saliency_tap=tap,
                context_write=self._write(),
                **{CACHE_ARGUMENT: cache},
            )
            self._executed.append((rows.count, rows.keys))
            self.biases.append(rows.bias)
            if tap is not None:
                with stopwatch.stage('selection'):
                    answer = _answer(tap)
                    plain = plan.taps[index].read is None
                    self.observe(index, rows.spread(answer) if plain else answer)
            if index == plan.decision:
                with stopwatch.stage('selection'):
                    plan = step.decide()
        rows.hidden = decoder.norm(rows.hidden)

    def observe(self, layer: int, answer: Tensor) -> None:
        """Give the pruner what a tap has read, float32 [N] unless the tap reads something else."""
        self._answers[layer] = answer
        self._step.observe(layer, answer)

    @torch.inference_mode()
    def finish(self, made_of_it: Mapping[str, Tensor] | None = None) -> DecoderOutput:
        """Let the pruner update the episode; nothing has changed in it before.

        Args:
            made_of_it: What another module has made of the pass, by name; must be finite, too.

        Raises:
            NonFiniteError: Tokens, attention or hidden states hold NaN or infinity.
        """
        rows, layout = self.rows, self._input.layout
        with self.stopwatch.stage('decode'):
            self._check_finite(made_of_it or {})
            with self.stopwatch.stage('selection'):
                report = self._step.finish(self._context)
        cost = layer_widths(self._config)
        whole = [(layout.length, layout.length)] * len(self._executed)
        kept = rows.kept
        return DecoderOutput(
            hidden=rows.hidden,
            positions=rows.positions,
            layout=layout,
            kept=torch.arange(layout.total, device=rows.hidden.device) if kept is None else kept,
            report=report,
            layer_keys=tuple(keys for _, keys in self._executed),
            macs=pass_macs(self._probed + self._executed, **cost),
            macs_full=pass_macs(whole, **cost),
            cache=self.cache,
            stopwatch=self.stopwatch,
            context_bytes=0 if self._context is None else self._context.nbytes,
            key_bias=tuple(self.biases),
        )

    def _move(self, decoder: Any, context: KeyValueContext, source: Tensor) -> None:
        rotary, visual = decoder.rotary_emb, self._input.layout.visual
        turns = torch.arange(len(source), device=source.device) - source
        cosine, sine = rotary(self.rows.hidden, position_ids=turns[None])
        scaling = rotary.attention_scaling  # the stored keys have it already
        context.move(source, visual, cosine[0] / scaling, sine[0] / scaling)

    def _tap(self, tap: Tap, index: int) -> SaliencyTap | None:
        asked = self.rows.query_rows(tap.rows)
        if asked is None:
            self.late_taps[index] = LateTap(tap, self.rows.columns, self.rows.spreader())
            return None
        return SaliencyTap(asked, self.rows.columns, self.stopwatch, tap.read)

    def _write(self) -> ContextWrite | None:
        if self._context is None:
            return None
        whole = self.rows.kept is None
        positions = None if whole else self.rows.positions
        return ContextWrite(self._context, positions, self.stopwatch)

    def _check_finite(self, more: Mapping[str, Tensor]) -> None:
        """Name the first place that is not finite; one look at the device when all is well."""
        places = [(f'attention of decoder layer {i}', v) for i, v in self._answers.items()]
        places += [('hidden states after the final norm', self.rows.hidden), *more.items()]
        finite = torch.stack([torch.isfinite(values).all() for _, values in places])
        if host.read_number(finite.all()):
            return
        where = places[finite.tolist().index(False)][0]
        if not bool(torch.isfinite(self._input.tokens).all()):
            where = 'visual tokens'
        left = 'the reference was left as it was'
        if self._context is not None:
            left = 'the next pass computes every token'
        raise NonFiniteError(f'{where}: NaN or infinity; {left}')


@torch.inference_mode()
def run_layers(
    decoder: Any,
    inputs_embeds: Tensor,
    *,
    layout: SequenceLayout,
    episode: EpisodeState,
    settings: PruningSettings,
    stamp_s: float,
    use_cache: bool = False,
    patches: Callable[[], Tensor] | None = None,
    pruner: Pruner | None = None,
) -> OpenPass:
    """Run one step up to ``OpenPass.finish``; see ``run_decoder``."""
    stopwatch = StageTimer(inputs_embeds.device)
    layers = len(decoder.layers)
    step_input = StepInput(inputs_embeds[0], layout, layers, settings, stamp_s, patches)
    with stopwatch.stage('decode'):
        with stopwatch.stage('matching'):
            step = (pruner or make_pruner(settings.method)).begin(step_input, episode)
        context = step.context
        if step.plan.context and context is None:
            context = make_context(decoder.config, layout.length, inputs_embeds)
        elif context is not None:
            context = context.fitted(layout.length, layout.visual)
        run = OpenPass(decoder, step, step_input, stopwatch, context)
        run.cache = DynamicCache() if use_cache else None
        if step.plan.probe:
            run.probe(decoder)
        run.run(decoder, step.plan, run.cache if context is None else None)
        if use_cache and context is not None:
            run.cache = copy_context(context)
    return run


def run_decoder(
    decoder: Any,
    inputs_embeds: Tensor,
    *,
    layout: SequenceLayout,
    episode: EpisodeState,
    settings: PruningSettings,
    stamp_s: float,
    use_cache: bool = False,
    patches: Callable[[], Tensor] | None = None,
    pruner: Pruner | None = None,
) -> DecoderOutput:
    """Run one step: embeddings in, hidden states of the rows that went on out.

    Which rows a layer runs, at their original positions, and whether those that left stay visible
    says the method's ``PassPlan``; whether the step is a key step is decided before any row leaves,
    so nothing runs twice (but for a study's probe). The episode changes only when the whole pass
    has succeeded.

    Args:
        decoder: A ``LlamaModel`` on which ``use_tapping_attention`` was called.
        inputs_embeds: [1, S, D].
        layout: Where everything stands.
        episode: The pruner's memory.
        settings: How to prune.
        stamp_s: Time of the observation, seconds.
        use_cache: Also return keys and values for ``decode_token``.
        patches: For methods that compare images: the pixels under each visual token, [N, P].
        pruner: Runs instead of the method that the settings name.

    Returns:
        Hidden states, what was kept, and what it cost.

    Raises:
        NonFiniteError: Tokens, attention or hidden states hold NaN or infinity.
        ParameterError: The settings do not fit the decoder.
    """
    return run_layers(
        decoder,
        inputs_embeds,
        layout=layout,
        episode=episode,
        settings=settings,
        stamp_s=stamp_s,
        use_cache=use_cache,
        patches=patches,
        pruner=pruner,
    ).finish()


def layer_widths(config: Any) -> dict[str, int]:
    """Return what ``pruning.layer_macs`` must know of a decoder with this configuration."""
    head = head_width(config)
    return {
        'width': config.hidden_size,
        'mlp_width': config.intermediate_size,
        'query_width': config.num_attention_heads * head,
        'key_width': config.num_key_value_heads * head,
    }


def head_width(config: Any) -> int:
    """Return the width of one attention head."""
    return int(
        getattr(config, 'head_dim', None) or config.hidden_size // config.num_attention_heads
    )


def make_context(config: Any, length: int, like: Tensor) -> KeyValueContext:
    """Make room for the keys and values of ``length`` rows of a decoder with this configuration.

    Args:
        config: The decoder's.
        length: S.
        like: A tensor of the dtype and on the device that the decoder computes with.
    """
    return KeyValueContext.allocate(
        layers=config.num_hidden_layers,
        heads=config.num_key_value_heads,
        length=length,
        width=head_width(config),
        dtype=like.dtype,
        device=like.device,
    )


def copy_context(context: KeyValueContext) -> DynamicCache:
    """Copy a context into a cache that may grow, so that decoding leaves the context as it is."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(context.buffer):
        cache.update(keys[None].clone(), values[None].clone(), index)
    return cache


@torch.inference_mode()
def decode_token(
    decoder: Any,
    embedding: Tensor,
    *,
    position: int,
    cache: DynamicCache,
    key_bias: Sequence[Tensor | None] = (),
) -> Tensor:
    """Decode one more token of a causal model after a pruned or unpruned prefill.

    Every layer attends to the rows that its own cache holds, so the cache may be ragged.

    Args:
        decoder: As in ``run_decoder``.
        embedding: [1, 1, D].
        position: Original position: S of the prefill for the first token, whatever was dropped.
        cache: From ``run_decoder(use_cache=True)``; grows by one row per layer.
        key_bias: That of the same output; empty for none.

    Returns:
        Hidden state after the final norm, [1, 1, D].
    """
    positions = torch.tensor([[position]], device=embedding.device)
    rotary = decoder.rotary_emb(embedding, position_ids=positions)
    hidden = embedding
    for index, layer in enumerate(decoder.layers):
        bias = key_bias[index] if key_bias else None
        if bias is not None:
            new = cache.get_seq_length(index) + 1 - len(bias)
            bias = torch.nn.functional.pad(bias, (0, new)).to(hidden.dtype)[None, None, None]
        hidden = layer(
            hidden, attention_mask=bias, position_embeddings=rotary, **{CACHE_ARGUMENT: cache}
        )
    return decoder.norm(hidden)  # type: ignore[no-any-return]


def _answer(tap: SaliencyTap) -> Tensor:
    if tap.answer is None:
        raise ValueError(
            'the decoder does not run tapping_attention: use_tapping_attention(decoder)'
        )
    return tap.answer[0]
