"""SDPA that can also report what a few query rows attend to, and attend to a stored context.

Taps and context travel as keyword arguments through the layer call, so a model holds no state of
them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaAttention

from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning.context import KeyValueContext
from safe_vla_ros.pruning.saliency import attention_probabilities, mean_saliency

TAPPING_ATTENTION = 'safe_vla_tapping_sdpa'
"""Name of the attention function among transformers' attention implementations."""

_NEW = 'cache' in inspect.signature(LlamaAttention.forward).parameters
CACHE_ARGUMENT = 'cache' if _NEW else 'past_key_values'
"""What this release of transformers calls the argument for keys and values (5.40 drops the old)."""


class SaliencyTap:
    """Asks one layer what a few of its query rows attend to.

    Attributes:
        rows: Query rows that are asked.
        columns: Visual columns among the keys, V of them.
        answer: The saliency, float32 [B, V], or what the tap's own ``read`` made of the
            probabilities [H, R, S], with a batch dimension; None until the layer has run.
    """

    __slots__ = ('_read', '_stopwatch', 'answer', 'columns', 'rows')

    def __init__(
        self,
        rows: slice,
        columns: slice,
        stopwatch: StageTimer,
        read: Callable[[Tensor, slice], Tensor] | None = None,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.answer: Tensor | None = None
        self._stopwatch = stopwatch
        self._read = read

    def read(
        self,
        query: Tensor,
        key: Tensor,
        *,
        scaling: float,
        causal: bool,
        attention_mask: Tensor | None,
    ) -> None:
        """Take the answer from rotated queries [B, H, S, d] and keys [B, G, S', d]."""
        with self._stopwatch.stage('taps'):
            probabilities = attention_probabilities(
                query[:, :, self.rows],
                key,
                scaling=scaling,
                bias=self._bias(query, key, causal, attention_mask),
            )
            if self._read is None:
                self.answer = mean_saliency(probabilities, self.columns)
            else:
                self.answer = self._read(probabilities[0], self.columns)[None]

    def _bias(
        self, query: Tensor, key: Tensor, causal: bool, attention_mask: Tensor | None
    ) -> Tensor | None:
        if attention_mask is not None:
            rows = attention_mask[:, :, self.rows, : key.shape[2]]
            if rows.dtype != torch.bool:
                return rows.float()
            return torch.zeros_like(rows, dtype=torch.float32).masked_fill(~rows, -torch.inf)
        if not causal:
            return None
        past = key.shape[2] - query.shape[2]
        last_key = torch.arange(query.shape[2], device=query.device)[self.rows] + past
        forbidden = torch.arange(key.shape[2], device=query.device) > last_key[:, None]
        return torch.zeros(forbidden.shape, device=query.device).masked_fill(forbidden, -torch.inf)


@dataclass(frozen=True)
class ContextWrite:
    """Where the rows of a pass stand in a context, and that their keys go there.

    Attributes:
        context: The buffer of all layers.
        positions: Where the rows stand, int64 [S]; None when they are all rows in order.
        stopwatch: Takes the time of the writing.
    """

    context: KeyValueContext
    positions: Tensor | None
    stopwatch: StageTimer

    def into_layer(self, module: Any, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values [1, G, S, d] of an attention module; return all it attends to."""
        with self.stopwatch.stage('context'):
            return self.context.write(module.layer_idx, key, value, self.positions)


def tapping_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    is_causal: bool | None = None,
    saliency_tap: SaliencyTap | None = None,
    context_write: ContextWrite | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Run SDPA as usual and, where a tap is set, answer it with one thin matmul.

    With a context the keys and values of the rows are written into it first, and the queries
    attend to all that it holds.

    Args:
        module: The attention module; its ``is_causal`` holds when the argument is None.
        query: Rotated queries, [B, H, S, d].
        key: Rotated keys [B, G, S', d], the cache's past included.
        value: Values [B, G, S', d].
        attention_mask: Boolean or additive [B, 1, S, S'], or None.
        scaling: Factor on the scores; 1 / sqrt(d) when None.
        is_causal: Whether a row sees only itself and what stands before it, when there is no mask.
            Without a mask transformers is causal, so a bidirectional model must say False.
        saliency_tap: Filled in when given.
        context_write: Written when given; a mask is then [B, 1, S, S'] with all S' rows of it.
        **kwargs: Passed on to SDPA.

    Returns:
        Attention output [B, S, H, d], and None for the weights.
    """
    if context_write is not None:
        key, value = context_write.into_layer(module, key, value)
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
    )
    if saliency_tap is not None:
        saliency_tap.read(
            query,
            key,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            causal=bool(getattr(module, 'is_causal', True) if is_causal is None else is_causal),
            attention_mask=attention_mask,
        )
    return output, None


def use_tapping_attention(decoder: Any) -> None:
    """Let a transformers decoder run ``tapping_attention``.

    Args:
        decoder: A model of transformers with SDPA support, for example ``LlamaModel``.
    """
    AttentionInterface.register(TAPPING_ATTENTION, tapping_attention)
    AttentionMaskInterface.register(TAPPING_ATTENTION, sdpa_mask)
    decoder.set_attn_implementation(TAPPING_ATTENTION)
