"""Pruning inside a Llama decoder."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, LlamaModel

from safe_vla_ros.errors import NonFiniteError, ParameterError
from safe_vla_ros.policies.attention import use_tapping_attention
from safe_vla_ros.policies.decoder import decode_token, run_decoder
from safe_vla_ros.pruning import PRUNER_NAMES, SequenceLayout, make_episode
from safe_vla_ros.types import PRUNING_STAGES, PruningSettings

# BOS | 20 visual tokens of two cameras | 5 text tokens | 6 action slots | stop
VISUAL = slice(1, 21)
CAMERAS = (12, 8)
ACTIONS = slice(26, 32)
LAST = 32
LENGTH = 33
LAYERS = 5


def make_model(groups=4):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
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


def make_input(seed=0):
    embeds = torch.randn(1, LENGTH, 64, generator=torch.Generator().manual_seed(seed))
    embeds[:, ACTIONS] = 0
    return embeds


def make_layout(**change):
    facts = {
        'length': LENGTH,
        'visual': VISUAL,
        'tokens_per_camera': CAMERAS,
        'last_row': LAST,
        'action_rows': ACTIONS,
    }
    return SequenceLayout(**{**facts, **change})


def step(model, embeds, episode=None, *, causal=False, stamp_s=0.0, use_cache=False, **change):
    change = {'layer': 2, 'keep_ratio': 0.25, 'refresh_threshold': 0.9, **change}
    return run_decoder(
        model,
        embeds,
        layout=make_layout(causal=causal),
        episode=make_episode() if episode is None else episode,
        settings=PruningSettings(**change),
        stamp_s=stamp_s,
        use_cache=use_cache,
    )


@torch.no_grad()
def plain_pass(model, embeds, *, causal, dropped=None, layer=2):
    """Run every row through every layer; from ``layer`` on nobody attends to dropped rows."""
    length = embeds.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool)
    if causal:
        allowed = allowed.tril()
    masked = allowed.clone()
    if dropped is not None:
        masked[:, dropped] = False
        masked |= torch.eye(length, dtype=torch.bool)
    rotary = model.rotary_emb(embeds, position_ids=torch.arange(length)[None])
    hidden = embeds
    for index, block in enumerate(model.layers):
        mask = allowed if index < layer else masked
        hidden = block(hidden, attention_mask=mask[None, None], position_embeddings=rotary)
    return model.norm(hidden)


def dropped_rows(output):
    return sorted(set(range(output.length)) - set(output.positions.tolist()))


@pytest.mark.parametrize('method', PRUNER_NAMES)
@pytest.mark.parametrize('causal', [False, True])
def test_keep_ratio_1_is_the_plain_forward_pass(model, method, causal):
    embeds, episode = make_input(), make_episode()

    outputs = [
        step(model, embeds, episode, causal=causal, method=method, keep_ratio=1.0) for _ in range(2)
    ]

    for output in outputs:
        torch.testing.assert_close(output.hidden, plain_pass(model, embeds, causal=causal))
        assert not output.pruned
        assert output.macs == output.macs_full


def test_without_a_pruner_the_output_is_bit_for_bit_the_causal_forward_pass(model):
    embeds = make_input()

    output = step(model, embeds, causal=True, method='none')

    with torch.no_grad():
        assert torch.equal(output.hidden, model(inputs_embeds=embeds).last_hidden_state)


@pytest.mark.parametrize('causal', [False, True])
def test_a_later_text_token_reaches_an_earlier_visual_token_only_without_causality(model, causal):
    embeds = make_input()
    changed = embeds.clone()
    changed[:, 24] += 1.0

    before = step(model, embeds, causal=causal, method='none').hidden
    after = step(model, changed, causal=causal, method='none').hidden

    assert torch.equal(before[:, VISUAL], after[:, VISUAL]) == causal
    assert not torch.equal(before[:, LAST], after[:, LAST])


@given(
    seed=st.integers(0, 1000),
    layer=st.integers(1, LAYERS - 1),
    keep_ratio=st.floats(0.05, 0.95),
    causal=st.booleans(),
    method=st.sampled_from(['safe', 'random', 'fastv']),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_pruning_equals_masking_the_dropped_keys(seed, layer, keep_ratio, causal, method):
    model = make_model(groups=2)
    embeds, episode = make_input(seed), make_episode()
    change = {'layer': layer, 'keep_ratio': keep_ratio, 'method': method}
    if method == 'safe':
        step(model, embeds, episode, causal=causal, **change)

    output = step(model, embeds, episode, causal=causal, **change)

    assert output.pruned
    masked = plain_pass(model, embeds, causal=causal, dropped=dropped_rows(output), layer=layer)
    torch.testing.assert_close(output.hidden, masked[:, output.positions], atol=2e-5, rtol=1e-4)


def test_every_other_row_is_kept_in_order_at_its_original_position(model):
    output = step(model, make_input(), method='fastv')

    positions = output.positions.tolist()
    assert positions == sorted(positions)
    assert set(range(LENGTH)) - set(range(1, 21)) <= set(positions)
    assert [index + 1 for index in output.kept.tolist()] == positions[1:6]
    assert len(output.kept) == 5


def test_rows_are_found_by_their_original_position(model):
    output = step(model, make_input(), method='fastv')

    kept_at = {position: place for place, position in enumerate(output.positions.tolist())}
    for rows in (ACTIONS, slice(0, 1), slice(LAST, LENGTH), slice(-7, -1)):
        places = [kept_at[position] for position in range(*rows.indices(LENGTH))]
        assert torch.equal(output.rows(rows), output.hidden[:, places])
    with pytest.raises(ValueError, match=r'rows 20\.\.25 hold visual tokens \(1\.\.20\)'):
        output.rows(slice(20, 26))


def test_the_same_observation_again_is_pruned_with_similarity_1(model):
    episode = make_episode()
    first = step(model, make_input(), episode, stamp_s=1.0)

    second = step(model, make_input(), episode, stamp_s=2.0)

    assert (first.key_step, first.reason, first.similarity) == (True, 'episode_start', None)
    assert not first.pruned
    assert second.similarity == pytest.approx(1.0, abs=1e-5)
    assert (second.key_step, second.pruned, second.reason) == (False, True, None)
    assert torch.equal(second.report.trace.match_index, torch.arange(20))
    torch.testing.assert_close(second.report.trace.forecast, episode.reference.saliency)
    assert episode.reference_stamp_s == 1.0


def test_an_abrupt_scene_change_is_a_key_step_that_the_memory_is_of(model):
    episode = make_episode()
    step(model, make_input(0), episode, stamp_s=1.0)

    shifted = step(model, make_input(1), episode, stamp_s=2.0)
    again = step(model, make_input(1), episode, stamp_s=3.0)

    assert (shifted.key_step, shifted.reason, shifted.pruned) == (True, 'attention_shift', False)
    assert shifted.similarity < 0.9
    assert episode.reference_stamp_s == 2.0
    assert (again.key_step, again.similarity) == (False, pytest.approx(1.0, abs=1e-5))
    assert episode.key_steps == Counter(episode_start=1, attention_shift=1)
    assert episode.steps == 3


@pytest.mark.parametrize('reason', ['service', 'instruction', 'observation_gap', 'max_age'])
def test_a_step_after_a_reset_is_a_key_step_with_its_reason(model, reason):
    episode = make_episode()
    step(model, make_input(), episode)

    episode.clear(reason)

    assert step(model, make_input(), episode).reason == reason


def test_interleaved_episodes_do_not_disturb_one_another(model):
    alone = [make_episode(), make_episode()]
    mixed = [make_episode(), make_episode()]
    seeds = [[0, 0, 5, 5], [1, 2, 2, 1]]

    expected = [
        [step(model, make_input(seed), alone[which]) for seed in seeds[which]] for which in (0, 1)
    ]
    got = [[], []]
    for turn in range(4):
        for which in (0, 1):
            got[which].append(step(model, make_input(seeds[which][turn]), mixed[which]))

    for one, other in zip(expected[0] + expected[1], got[0] + got[1], strict=True):
        assert torch.equal(one.hidden, other.hidden)
        assert (one.reason, one.similarity) == (other.reason, other.similarity)


@pytest.mark.parametrize('change', [{}, {'fusion': 'reference', 'forecast_layers': (0, 4)}])
@pytest.mark.parametrize('seed', [0, 1])
def test_every_layer_runs_exactly_once_in_pruned_and_key_steps(change, seed):
    model, episode = make_model(), make_episode()
    step(model, make_input(0), episode, **change)
    runs = Counter()
    for index, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(lambda *_, index=index: runs.update([index]))

    output = step(model, make_input(seed), episode, **change)

    assert output.key_step == (seed == 1)
    assert runs == dict.fromkeys(range(LAYERS), 1)


def test_saliency_at_layer_0_is_read_at_the_last_row(model):
    output = step(model, make_input(), layer=1)

    saliency = output.report.trace.saliency[0]
    assert saliency.std() > 1e-4
    torch.testing.assert_close(output.scores, saliency)


def test_a_multiply_accumulate_count_follows_the_kept_rows(model):
    output = step(model, make_input(), method='fastv')

    rows = output.hidden.shape[1]
    assert rows == LENGTH - 15

    def count(n):
        return 4 * n * 64**2 + 2 * n**2 * 64 + 3 * n * 64 * 96

    assert output.macs == 2 * count(LENGTH) + 3 * count(rows)
    assert output.macs_full == 5 * count(LENGTH)


def test_the_stages_of_pruning_are_timed_within_the_pass(model):
    episode = make_episode()
    step(model, make_input(), episode)

    stages = step(model, make_input(), episode).stage_ms

    assert set(stages) == {'decode', 'pruning', *PRUNING_STAGES}
    assert {name for name in stages if stages[name] == 0} == {'context'}
    assert stages['pruning'] < stages['decode']


@pytest.mark.parametrize('pruned_step', [False, True])
def test_non_finite_visual_tokens_are_named_and_the_memory_stays(model, pruned_step):
    episode = make_episode()
    if pruned_step:
        step(model, make_input(), episode)
    reference = episode.reference
    embeds = make_input()
    embeds[0, 7, 3] = torch.nan

    with pytest.raises(NonFiniteError, match='visual tokens: NaN or infinity'):
        step(model, embeds, episode)

    assert episode.reference is reference
    assert episode.steps == int(pruned_step)


@pytest.mark.parametrize('pruned_step', [False, True])
@pytest.mark.parametrize('broken', [0, 1, 2, 4])
def test_a_layer_that_turns_non_finite_is_named_and_the_memory_stays(broken, pruned_step):
    model, episode = make_model(), make_episode()
    change = {'forecast_layers': (0, 3)}
    if pruned_step:
        step(model, make_input(), episode, **change)
    reference = episode.reference
    with torch.no_grad():
        model.layers[broken].mlp.down_proj.weight[0, 0] = torch.inf

    with pytest.raises(NonFiniteError) as caught:
        step(model, make_input(), episode, **change)

    seen_at = {0: 'layer 1', 1: 'final norm' if pruned_step else 'layer 3'}
    seen_at |= {2: seen_at[1], 4: 'final norm'}
    assert seen_at[broken] in str(caught.value)
    assert episode.reference is reference
    assert episode.steps == int(pruned_step)


def test_a_failed_step_of_random_does_not_advance_its_generator(model):
    episode = make_episode()
    embeds = make_input()
    embeds[0, 7, 3] = torch.nan
    with pytest.raises(NonFiniteError):
        step(model, embeds, episode, method='random')

    retried = step(model, make_input(), episode, method='random')

    fresh = step(model, make_input(), make_episode(), method='random')
    assert torch.equal(retried.kept, fresh.kept)


@pytest.mark.parametrize('pruned_step', [False, True])
def test_decoding_on_a_ragged_cache_equals_masking_the_dropped_keys(model, pruned_step):
    prompt = torch.randn(1, 27, 64, generator=torch.Generator().manual_seed(3))
    tokens = torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(4))
    episode = make_episode()
    arguments = {
        'layout': make_layout(length=27, last_row=26, action_rows=slice(26, 27), causal=True),
        'episode': episode,
        'settings': PruningSettings(layer=2),
        'stamp_s': 0.0,
        'use_cache': True,
    }
    output = run_decoder(model, prompt, **arguments)
    if pruned_step:
        output = run_decoder(model, prompt, **arguments)

    decoded = [
        decode_token(model, tokens[:, [index]], position=27 + index, cache=output.cache)
        for index in range(3)
    ]

    assert output.pruned == pruned_step
    rows = [output.cache.get_seq_length(layer) for layer in range(LAYERS)]
    kept = len(output.positions) + 3
    assert rows == [30, 30, kept, kept, kept]
    whole = plain_pass(
        model, torch.cat([prompt, tokens], dim=1), causal=True, dropped=dropped_rows(output)
    )
    torch.testing.assert_close(torch.cat(decoded, dim=1), whole[:, -3:], atol=2e-5, rtol=1e-4)


def test_no_cache_is_made_unless_asked_for(model):
    assert step(model, make_input()).cache is None
    assert isinstance(step(model, make_input(), use_cache=True).cache, DynamicCache)


def test_settings_that_do_not_fit_the_decoder_are_refused(model):
    with pytest.raises(ParameterError, match=r'pruning.layer = 5: must be 1 to 4'):
        step(model, make_input(), layer=5)


def test_a_decoder_without_the_tapping_attention_is_refused():
    model = make_model()
    model.set_attn_implementation('sdpa')

    with pytest.raises(ValueError, match='does not run tapping_attention'):
        step(model, make_input())
