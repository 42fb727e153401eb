"""SDPA that can also report what a few query rows attend to.

The taps travel as keyword arguments through the layer call, so a model holds no state of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from safe_vla_ros.policies.stage_timer import StageTimer
from safe_vla_ros.pruning.saliency import attention_saliency

TAPPING_ATTENTION = 'safe_vla_tapping_sdpa'
"""Name of the attention function among transformers' attention implementations."""


class SaliencyTap:
    """Asks one layer for the saliency of its visual tokens.

    Attributes:
        rows: Query rows that are asked.
        columns: Visual columns.
        saliency: The answer, float32 [B, N]; None until the layer has run.
    """

    __slots__ = ('_stopwatch', 'columns', 'rows', 'saliency')

    def __init__(self, rows: slice, columns: slice, stopwatch: StageTimer) -> None:
        self.rows = rows
        self.columns = columns
        self.saliency: Tensor | None = None
        self._stopwatch = stopwatch

    def read(
        self,
        query: Tensor,
        key: Tensor,
        *,
        scaling: float,
        causal: bool,
        attention_mask: Tensor | None,
    ) -> None:
        """Take the saliency from rotated queries [B, H, S, d] and keys [B, G, S', d]."""
        with self._stopwatch.stage('taps'):
            self.saliency = attention_saliency(
                query[:, :, self.rows],
                key,
                columns=self.columns,
                scaling=scaling,
                bias=self._bias(query, key, causal, attention_mask),
            )

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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Run SDPA as usual and, where a tap is set, answer it with one thin matmul.

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
        **kwargs: Passed on to SDPA.

    Returns:
        Attention output [B, S, H, d], and None for the weights.
    """
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
