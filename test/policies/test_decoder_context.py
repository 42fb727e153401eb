"""A decoder whose keys and values outlive the step."""

import gc

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.decoder import decode_token, run_decoder
from safe_vla_ros.pruning import SequenceLayout, make_episode
from safe_vla_ros.pruning.pruners.refresh import moved_tokens
from safe_vla_ros.types import PruningSettings

# begin | 20 visual tokens of two cameras | 5 text tokens | 6 action slots | stop
LENGTH, WIDTH, LAYERS = 33, 64, 5
VISUAL, ACTIONS = slice(1, 21), slice(26, 32)
NEAR = {'atol': 1e-4, 'rtol': 1e-4}
"""In float64, but for norms and rotary tables; states are of the order of 10."""


def make_model(groups=4, layers=LAYERS, width=WIDTH):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=width,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=groups,
        initializer_range=0.3,
    )
    model = LlamaModel(config).eval()
    use_tapping_attention(model)
    return model


@pytest.fixture(scope='module')
def model():
    return make_model()


def make_input(seed=0, width=WIDTH):
    """A scene whose text and robot change little and whose visual tokens change with the seed."""
    still = torch.randn(1, LENGTH, width, generator=torch.Generator().manual_seed(99))
    moving = torch.randn(1, LENGTH, width, generator=torch.Generator().manual_seed(seed))
    embeds = still + 0.3 * moving
    embeds[:, ACTIONS] = 0
    return embeds


def step(model, embeds, episode, *, causal=False, use_cache=False, stamp_s=0.0, **change):
    return run_decoder(
        model,
        embeds,
        layout=SequenceLayout(LENGTH, VISUAL, (12, 8), 32, ACTIONS, causal=causal),
        episode=episode,
        settings=PruningSettings(**{'method': 'refresh', 'keep_ratio': 0.25, **change}),
        stamp_s=stamp_s,
        use_cache=use_cache,
    )


class SlowContext:
    """All rows of every step, with the keys and values of stale tokens put in place of theirs."""

    def __init__(self, model, causal):
        self.model = model
        self.allowed = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
        if causal:
            self.allowed = self.allowed.tril()
        self.stored = {}

    @torch.no_grad()
    def move(self, source):
        """Give visual tokens the keys of others: turned back to no position, then to their own."""
        here, there = torch.arange(1, 21), source + 1

        def turn(keys, positions):
            like = torch.zeros(1, len(positions), WIDTH, dtype=keys.dtype)
            tables = self.model.rotary_emb(like, position_ids=positions[None])
            return apply_rotary_pos_emb(keys, keys, *tables)[0]

        for key, value in self.stored.values():
            key[:, :, here] = turn(turn(key[:, :, there], -there), here)
            value[:, :, here] = value[:, :, there]

    @torch.no_grad()
    def run(self, embeds, computed):
        """Return all hidden states; only those of ``computed`` positions mean something."""
        rotary = self.model.rotary_emb(embeds, position_ids=torch.arange(LENGTH)[None])
        hidden = embeds
        for index, block in enumerate(self.model.layers):
            normed = block.input_layernorm(hidden)
            attention = block.self_attn

            def heads(projection, normed=normed, attention=attention):
                return projection(normed).view(1, LENGTH, -1, attention.head_dim).transpose(1, 2)

            query, key = apply_rotary_pos_emb(
                heads(attention.q_proj), heads(attention.k_proj), *rotary
            )
            value = heads(attention.v_proj)
            if index in self.stored:
                for new, old in zip((key, value), self.stored[index], strict=True):
                    fresh = new.clone()
                    new.copy_(old)
                    new[:, :, computed] = fresh[:, :, computed]
            self.stored[index] = key, value
            seen = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=self.allowed, enable_gqa=True
            )
            hidden = hidden + attention.o_proj(seen.transpose(1, 2).reshape(1, LENGTH, -1))
            hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
        return self.model.norm(hidden)


@given(
    seed=st.integers(0, 1000),
    keep_ratio=st.floats(0.05, 0.9),
    causal=st.booleans(),
    groups=st.sampled_from([2, 4]),
    moves=st.booleans(),
)
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_step_equals_a_full_pass_with_the_stored_keys_in_place(
    seed, keep_ratio, causal, groups, moves
):
    model, episode = make_model(groups).double(), make_episode()
    slow = SlowContext(model, causal)

    for number in range(4):
        embeds = make_input(seed + number).double()
        embeds[0, 1:13] = embeds[0, 1:13].roll(number, dims=0)
        if moves and number:
            stored = episode.reference.tokens
            slow.move(moved_tokens(embeds[0, VISUAL], stored, (12, 8)))
        output = step(
            model,
            embeds,
            episode,
            causal=causal,
            keep_ratio=keep_ratio,
            forecast_moved=moves,
        )

        whole = slow.run(embeds, output.positions)
        assert output.pruned == (number > 0)
        torch.testing.assert_close(output.hidden, whole[:, output.positions], **NEAR)
        for index, (keys, values) in slow.stored.items():
            stored = episode.context.buffer[index]
            torch.testing.assert_close(stored[0], keys[0], **NEAR)
            torch.testing.assert_close(stored[1], values[0], **NEAR)


@pytest.mark.parametrize('causal', [False, True])
def test_with_everything_renewed_it_is_the_unpruned_pass_to_the_bit(model, causal):
    episode = make_episode()

    for seed in range(3):
        embeds = make_input(seed)
        output = step(model, embeds, episode, causal=causal, keep_ratio=1.0)

        plain = step(model, embeds, make_episode(), causal=causal, method='none')
        assert torch.equal(output.hidden, plain.hidden)
        assert output.macs == output.macs_full
        assert not output.pruned
        assert output.report.residual == (None if seed == 0 else 0.0)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize(
    ('dtype', 'near'), [(torch.float32, (1e-5, 1e-4)), (torch.bfloat16, (0.05, 0.05))]
)
def test_the_same_step_again_gives_the_same_states_up_to_rounding(causal, dtype, near):
    model, episode = make_model().to(dtype), make_episode()
    embeds = make_input().to(dtype)
    full = step(model, embeds, episode, causal=causal)

    for _ in range(5):
        again = step(model, embeds, episode, causal=causal)

        assert again.pruned
        assert again.report.residual == 0.0
        for rows in (ACTIONS, slice(21, 26), slice(0, 1)):
            atol, rtol = near
            torch.testing.assert_close(again.rows(rows), full.rows(rows), atol=atol, rtol=rtol)


def test_a_full_pass_runs_when_too_much_would_stay_stale(model):
    episode = make_episode()
    step(model, make_input(0), episode, stamp_s=1.0)

    output = step(model, make_input(1), episode, stamp_s=2.0, max_staleness=0.01)

    plain = step(model, make_input(1), make_episode(), method='none')
    assert (output.key_step, output.reason) == (True, 'attention_shift')
    assert torch.equal(output.hidden, plain.hidden)
    assert episode.reference_stamp_s == 2.0
    assert dict(episode.key_steps) == {'episode_start': 1, 'attention_shift': 1}


def test_multiply_accumulates_are_counted_as_executed(model):
    episode = make_episode()
    step(model, make_input(0), episode)

    output = step(model, make_input(1), episode)

    rows = LENGTH - 15
    layer = 4 * rows * WIDTH**2 + 2 * rows * LENGTH * WIDTH + 3 * rows * WIDTH * 96
    assert output.hidden.shape[1] == rows
    assert output.layer_keys == (LENGTH,) * LAYERS
    assert output.macs == LAYERS * layer


def test_writing_the_context_is_timed_as_part_of_pruning(model):
    episode = make_episode()
    step(model, make_input(0), episode)

    stages = step(model, make_input(1), episode).stage_ms

    assert 0 < stages['context'] < stages['pruning'] < stages['decode']


def test_keys_of_a_shifted_view_are_those_of_a_fresh_pass_in_the_first_layer(model):
    episode, fresh = make_episode(), make_episode()
    before = make_input(0)
    after = before.clone()
    after[0, 1:13] = before[0, 1:13].roll(1, dims=0)
    step(model, before, episode)

    output = step(model, after, episode, forecast_moved=True)

    step(model, after, fresh)
    assert output.pruned
    assert output.report.residual == 0.0
    moved, computed = episode.context.buffer[0], fresh.context.buffer[0]
    torch.testing.assert_close(moved, computed, atol=1e-5, rtol=1e-4)


def test_tokens_are_decoded_on_a_copy(model):
    tokens = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(4))
    episode = make_episode()
    for seed in range(3):
        output = step(model, make_input(seed), episode, causal=True, use_cache=True)
    before = episode.context.buffer.clone()

    decoded = [
        decode_token(model, tokens[:, [index]], position=LENGTH + index, cache=output.cache)
        for index in range(3)
    ]

    assert torch.equal(episode.context.buffer, before)
    hidden = tokens[:, :1]
    positions = torch.tensor([[LENGTH]])
    rotary = model.rotary_emb(hidden, position_ids=positions)
    for block, (keys, values) in zip(model.layers, before, strict=True):
        attention = block.self_attn
        normed = block.input_layernorm(hidden)
        query, key = apply_rotary_pos_emb(
            *(
                projection(normed).view(1, 1, 4, -1).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj)
            ),
            *rotary,
        )
        value = attention.v_proj(normed).view(1, 1, 4, -1).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(
            query, torch.cat([keys[None], key], 2), torch.cat([values[None], value], 2)
        )
        hidden = hidden + attention.o_proj(seen.transpose(1, 2).reshape(1, 1, -1))
        hidden = hidden + block.mlp(block.post_attention_layernorm(hidden))
    torch.testing.assert_close(decoded[0], model.norm(hidden), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize('causal', [False, True])
def test_a_pass_that_fails_midway_leaves_no_half_written_keys(causal):
    model, episode = make_model(), make_episode()
    step(model, make_input(0), episode, causal=causal)

    def fail(*_):
        raise RuntimeError('out of memory')

    hook = model.layers[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        step(model, make_input(1), episode, causal=causal)
    hook.remove()

    assert (episode.context, episode.reference) == (None, None)
    after = step(model, make_input(2), episode, causal=causal)
    assert (after.key_step, after.reason) == (True, 'failure')
    fresh = step(model, make_input(2), make_episode(), causal=causal)
    assert torch.equal(after.hidden, fresh.hidden)
    assert episode.steps == 2


def test_states_that_turn_non_finite_leave_no_keys_either():
    model, episode = make_model(), make_episode()
    step(model, make_input(0), episode)
    weight = model.layers[4].mlp.down_proj.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match='the next pass computes every token'):
        step(model, make_input(1), episode)
    with torch.no_grad():
        weight.copy_(kept)

    assert step(model, make_input(1), episode).reason == 'failure'


def test_a_step_of_another_method_ends_the_life_of_the_context(model):
    episode = make_episode()
    step(model, make_input(0), episode)
    assert episode.context_bytes == LAYERS * 2 * LENGTH * WIDTH * 4

    step(model, make_input(0), episode, method='none')

    assert episode.context_bytes == 0
    assert step(model, make_input(0), episode).reason == 'parameters'


def test_interleaved_episodes_have_contexts_of_their_own(model):
    alone, mixed, other = make_episode(), make_episode(), make_episode()
    for seed in range(3):
        expected = step(model, make_input(seed), alone)
        step(model, make_input(seed + 50), other)
        got = step(model, make_input(seed), mixed)
        assert torch.equal(got.hidden, expected.hidden)


def test_memory_stays_the_same_over_2000_steps():
    model, episode = make_model(layers=2, width=16), make_episode()
    inputs = [make_input(seed, width=16) for seed in range(7)]

    def live():
        gc.collect()
        return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())

    for number in range(2000):
        step(model, inputs[number % 7], episode, max_staleness=0.9)
        if number == 100:
            buffer, tensors = episode.context.buffer.data_ptr(), live()

    assert episode.steps == 2000
    assert episode.context.buffer.data_ptr() == buffer
    assert live() == tensors
