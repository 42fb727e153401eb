"""The action expert of pi0 and pi0.5: a Gemma that attends to what a prefix has stored.

Its layer l attends to the keys and values of layer l of the prefix, which may be fewer from the
pruning layer on. pi0 has a state token in front of its actions and mixes the time into them; pi0.5
lets the time scale, shift and gate every norm (adaptive RMSNorm).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import (
    GemmaAttention,
    GemmaMLP,
    GemmaRMSNorm,
    GemmaRotaryEmbedding,
)

from safe_vla_ros.policies.attention import CACHE_ARGUMENT, SaliencyTap
from safe_vla_ros.policies.pi_options import ADDED_TIME
from safe_vla_ros.policies.pi_sizes import NORM_EPSILON, PiSizes

if TYPE_CHECKING:
    from transformers import GemmaConfig

Taps = Mapping[int, SaliencyTap]


@dataclass(frozen=True)
class StoredPrefix:
    """What the expert attends to; batch size 1.

    Attributes:
        keys: Rotated keys by layer, [1, 1, S_l, d] each; S_l may differ.
        values: Values by layer, like ``keys``.
        biases: Added to the scores of a layer's keys, float32 [S_l]; None where nothing is.
        length: S, rows before anything was pruned: the expert's positions begin here.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    biases: tuple[Tensor | None, ...]
    length: int


@dataclass(frozen=True)
class DenoisedStep:
    """One step of the denoising, for checks against other implementations.

    Attributes:
        index: Its number, from 0.
        time: Its time, from 1 down to 1/N.
        noisy: x_t that enters it, float32 [T, A].
        velocity: What the expert says of it, float32 [T, A].
    """

    index: int
    time: float
    noisy: Tensor
    velocity: Tensor


class AdaptiveRMSNorm(nn.Module):
    """RMSNorm whose scale, shift and gate come from a condition."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, 3 * width)

    def forward(self, hidden: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return the normalised states [1, n, D] and the gate [1, 1, D] of what follows."""
        states = hidden.float()
        normed = states * torch.rsqrt(states.square().mean(-1, keepdim=True) + NORM_EPSILON)
        scale, shift, gate = self.dense(condition)[:, None].chunk(3, dim=-1)
        normed = normed * (1.0 + scale.float()) + shift.float()
        return normed.to(hidden.dtype), gate.to(hidden.dtype)


class PlainRMSNorm(GemmaRMSNorm):  # type: ignore[misc]  # transformers has no types
    """Gemma's norm, in the form of the adaptive one."""

    def forward(self, hidden: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:  # noqa: ARG002
        """Return the normalised states [1, n, D]; nothing gates what follows."""
        return super().forward(hidden), None


class ExpertLayer(nn.Module):
    """One layer: attention to prefix and suffix, then the MLP."""

    def __init__(self, config: GemmaConfig, index: int, *, adaptive: bool) -> None:
        super().__init__()
        self.self_attn = GemmaAttention(config, index)
        self.mlp = GemmaMLP(config)
        self.input_layernorm = _norm(config.hidden_size, adaptive=adaptive)
        self.post_attention_layernorm = _norm(config.hidden_size, adaptive=adaptive)

    def forward(
        self,
        hidden: Tensor,
        condition: Tensor | None,
        *,
        rotary: tuple[Tensor, Tensor],
        stored: _StoredLayer,
        mask: Tensor | None,
        tap: SaliencyTap | None,
    ) -> Tensor:
        """Map states [1, n, D] to states [1, n, D]."""
        normed, gate = self.input_layernorm(hidden, condition)
        attended, _ = self.self_attn(
            normed,
            position_embeddings=rotary,
            attention_mask=mask,
            is_causal=False,
            saliency_tap=tap,
            **{CACHE_ARGUMENT: stored},
        )
        hidden = _add(hidden, attended, gate)
        normed, gate = self.post_attention_layernorm(hidden, condition)
        return _add(hidden, self.mlp(normed), gate)


class ActionExpert(nn.Module):
    """Denoises action chunks; its weights are named as in the checkpoints."""

    def __init__(self, sizes: PiSizes) -> None:
        """Build every module on the current default device."""
        super().__init__()
        config, width = sizes.expert, sizes.expert.hidden_size
        self.config = config
        self.adaptive = sizes.kind == 'pi05'
        self.action_width = sizes.action_width
        self.layers = nn.ModuleList(
            ExpertLayer(config, index, adaptive=self.adaptive)
            for index in range(config.num_hidden_layers)
        )
        self.norm = _norm(width, adaptive=self.adaptive)
        self.rotary_emb = GemmaRotaryEmbedding(config)
        self.action_in_proj = nn.Linear(sizes.action_width, width)
        self.action_out_proj = nn.Linear(width, sizes.action_width)
        if self.adaptive:
            self.time_mlp_in = nn.Linear(width, width)
            self.time_mlp_out = nn.Linear(width, width)
        else:
            self.state_proj = nn.Linear(sizes.state_width, width)
            self.action_time_mlp_in = nn.Linear(2 * width, width)
            self.action_time_mlp_out = nn.Linear(width, width)
        self._periods = sizes.periods

    def set_attn_implementation(self, name: str) -> None:
        """Choose the attention function, as transformers' models do."""
        self.config._attn_implementation = name  # noqa: SLF001

    def action_rows(self, chunk_size: int) -> slice:
        """Return where the action rows stand among the expert's."""
        first = 0 if self.adaptive else 1
        return slice(first, first + chunk_size)

    def velocity(
        self,
        noisy: Tensor,
        time: Tensor,
        state: Tensor | None,
        prefix: StoredPrefix,
        taps: Taps,
    ) -> Tensor:
        """Say where noisy actions should go.

        Args:
            noisy: x_t, float32 [1, T, A].
            time: Its time, float32 [1].
            state: Normalised and padded state, float32 [1, P]; pi0 only.
            prefix: What is attended to.
            taps: What to read, by layer; answered.

        Returns:
            Velocity, float32 [1, T, A].
        """
        hidden, condition = self._suffix(noisy, time, state)
        hidden = hidden.to(prefix.keys[0].dtype)
        count = hidden.shape[1]
        positions = torch.arange(prefix.length, prefix.length + count, device=hidden.device)
        rotary = self.rotary_emb(hidden, position_ids=positions[None])
        for index, layer in enumerate(self.layers):
            stored = _StoredLayer(prefix.keys[index], prefix.values[index])
            hidden = layer(
                hidden,
                condition,
                rotary=rotary,
                stored=stored,
                mask=self._mask(prefix, index, hidden),
                tap=taps.get(index),
            )
        hidden, _ = self.norm(hidden, condition)
        actions = hidden[:, -noisy.shape[1] :].to(self.action_out_proj.weight.dtype)
        result: Tensor = self.action_out_proj(actions)
        return result.float()

    def denoise(
        self,
        noise: Tensor,
        state: Tensor | None,
        prefix: StoredPrefix,
        *,
        num_steps: int,
        time_rule: str,
        taps: Callable[[int], Taps],
        observe: Callable[[DenoisedStep], None] | None = None,
    ) -> Tensor:
        """Turn noise into normalised actions by Euler steps from time 1 to 0.

        Args:
            noise: float32 [1, T, A].
            state: See ``velocity``.
            prefix: What is attended to.
            num_steps: N.
            time_rule: ``exact`` or ``added``, see ``PiOptions``.
            taps: What to read in a step, given its number.
            observe: Told of every step.

        Returns:
            Normalised actions, float32 [1, T, A].
        """
        actions, step = noise, -1.0 / num_steps
        for index, time in enumerate(step_times(num_steps, time_rule)):
            moment = torch.tensor([time], dtype=torch.float32, device=noise.device)
            velocity = self.velocity(actions, moment, state, prefix, taps(index))
            if observe is not None:
                observe(DenoisedStep(index, time, actions[0], velocity[0]))
            actions = actions + step * velocity
        return actions

    def _suffix(
        self, noisy: Tensor, time: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        weight = self.action_in_proj.weight
        embedded = time_embedding(time, weight.shape[0], self._periods).to(weight.dtype)
        actions = self.action_in_proj(noisy.to(weight.dtype))
        if self.adaptive:
            hidden = functional.silu(self.time_mlp_in(embedded))
            return actions, functional.silu(self.time_mlp_out(hidden))
        if state is None:
            raise ValueError('pi0 needs a state')
        times = embedded[:, None].expand_as(actions)
        mixed = functional.silu(self.action_time_mlp_in(torch.cat([actions, times], dim=2)))
        first = self.state_proj(state.to(weight.dtype))[:, None]
        return torch.cat([first, self.action_time_mlp_out(mixed)], dim=1), None

    def _mask(self, prefix: StoredPrefix, index: int, hidden: Tensor) -> Tensor | None:
        """Let pi0's state token not see the actions, and weigh keys that have a bias."""
        bias, count = prefix.biases[index], hidden.shape[1]
        if bias is None and self.adaptive:
            return None
        keys = prefix.keys[index].shape[2]
        mask = torch.zeros(count, keys + count, dtype=hidden.dtype, device=hidden.device)
        if bias is not None:
            mask[:, :keys] = bias
        if not self.adaptive:
            mask[0, keys + 1 :] = -torch.inf
        return mask[None, None]


class _StoredLayer:
    """Puts the keys and values of a prefix before those of the rows that run; keeps none."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys = keys
        self._values = values

    def update(
        self,
        key: Tensor,
        value: Tensor,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return all keys and values, [1, 1, S_l + n, d]."""
        return torch.cat([self._keys, key], dim=2), torch.cat([self._values, value], dim=2)


def step_times(num_steps: int, rule: str) -> list[float]:
    """Return the time of every denoising step, from 1 down to 1 / N, as float32 numbers.

    Args:
        num_steps: N.
        rule: ``exact`` rounds 1 - i / N once; ``added`` sums float32 steps up.
    """
    if rule != ADDED_TIME:
        step = -1.0 / num_steps
        return [float(torch.tensor(1.0 + i * step)) for i in range(num_steps)]
    times, time = [], torch.tensor(1.0)
    step_tensor = torch.tensor(-1.0 / num_steps)
    for _ in range(num_steps):
        times.append(float(time))
        time = time + step_tensor
    return times


def time_embedding(time: Tensor, width: int, periods: tuple[float, float]) -> Tensor:
    """Return sines, then cosines of a time, computed in float64.

    Args:
        time: float32 [1].
        width: Length of the embedding.
        periods: Shortest and longest period.

    Returns:
        float32 [1, width].
    """
    low, high = periods
    places = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=time.device)
    frequencies = 1.0 / (low * (high / low) ** places) * 2.0 * torch.pi
    angles = frequencies * time.double()[:, None]
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _norm(width: int, *, adaptive: bool) -> nn.Module:
    return AdaptiveRMSNorm(width) if adaptive else PlainRMSNorm(width, eps=NORM_EPSILON)


def _add(hidden: Tensor, change: Tensor, gate: Tensor | None) -> Tensor:
    return hidden + change if gate is None else hidden + change * gate
