"""What holds for every pruning method, in a bare decoder and in whole policies."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from openvla_checkpoints import golden_settings, policy_settings, unpack_golden
from small_decoder import (
    ACTIONS,
    FULL_PASSES,
    LAYERS,
    LENGTH,
    VISUAL,
    make_input,
    make_layout,
    make_model,
    step,
)

from safe_vla_ros.errors import NonFiniteError
from safe_vla_ros.policies.decoder import decode_token, run_decoder, run_layers
from safe_vla_ros.policies.mini import MiniPolicy, make_tokenizer
from safe_vla_ros.policies.mini_model import MiniConfig, MiniVla
from safe_vla_ros.policies.registry import load_policy
from safe_vla_ros.pruning import STUDY_NAMES, layer_macs, make_episode
from safe_vla_ros.pruning.pooling import pooling_cells
from safe_vla_ros.types import (
    REFRESH_REASONS,
    MessageHeader,
    Observation,
    PolicySpec,
    PruningSettings,
)

METHODS = [name for name in STUDY_NAMES if name != 'none']
WITH_MEMORY = list(FULL_PASSES)
CONTEXTS = ('vla_cache', 'refresh')


@pytest.fixture(scope='module')
def model():
    return make_model()


def run(model, episode, method, seeds, **change):
    return [step(model, make_input(seed), episode, method=method, **change) for seed in seeds]


def until_pruned(model, episode, method, **change):
    """Run the full passes that a method begins with, and one more step."""
    seeds = range(FULL_PASSES.get(method, 0) + 1)
    return run(model, episode, method, seeds, refresh_threshold=-1.0, **change)[-1]


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('causal', [False, True])
def test_with_keep_ratio_1_it_is_the_unpruned_pass_to_the_bit(model, method, causal):
    episode = make_episode()

    for seed in range(4):
        change = {'causal': causal, 'keep_ratio': 1.0}
        output = step(model, make_input(seed), episode, method=method, **change)

        plain = step(model, make_input(seed), method='none', causal=causal)
        assert torch.equal(output.hidden, plain.hidden)
        assert not output.pruned
        assert output.macs == output.macs_full * (2 if method == 'oracle' else 1)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('keep_ratio', [0.05, 0.25, 0.6])
def test_exactly_m_ascending_tokens_go_through_every_layer(model, method, keep_ratio):
    output = until_pruned(model, make_episode(), method, keep_ratio=keep_ratio)

    kept = output.kept.tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == round(keep_ratio * 20)
    assert set(kept) <= set(range(20))
    for rows in (ACTIONS, slice(21, 26), slice(0, 1)):
        assert output.rows(rows).shape[1] == len(range(*rows.indices(LENGTH)))


@pytest.mark.parametrize('method', METHODS)
def test_multiply_accumulates_are_those_of_the_rows_that_layers_got(method):
    model, episode, rows = make_model(), make_episode(), []
    for layer in model.layers:
        layer.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[1]))
    until_pruned(model, episode, method)
    rows.clear()

    output = step(model, make_input(9), episode, method=method, refresh_threshold=-1.0)

    keys = [LENGTH if method in CONTEXTS else count for count in rows]
    assert output.macs == sum(
        layer_macs(count, 64, 96, context=seen) for count, seen in zip(rows, keys, strict=True)
    )
    whole = (LENGTH,) * LAYERS
    assert output.macs_full == sum(layer_macs(count, 64, 96) for count in whole)
    first = {'divprune': 0, 'vla_cache': 0, 'refresh': 0}.get(method, 2)
    cells = max(pooling_cells(((3, 4), (2, 4)))) + 1 if method == 'merge' else 0
    expected = [*whole[:first], *(LENGTH - 15 + cells,) * (LAYERS - first)]
    assert rows == ([*whole, *expected] if method == 'oracle' else expected)


@pytest.mark.parametrize('method', WITH_MEMORY)
@pytest.mark.parametrize('reason', REFRESH_REASONS)
def test_after_clearing_it_goes_on_as_if_nothing_had_been_before(model, method, reason):
    episode, fresh = make_episode(), make_episode()
    assert until_pruned(model, episode, method).pruned
    seeds = range(20, 20 + FULL_PASSES[method] + 2)

    episode.clear(reason)

    after = run(model, episode, method, seeds, refresh_threshold=-1.0)
    alone = run(model, fresh, method, seeds, refresh_threshold=-1.0)
    for got, expected in zip(after, alone, strict=True):
        assert torch.equal(got.hidden, expected.hidden)
        assert (got.pruned, got.key_step) == (expected.pruned, expected.key_step)
    full = after[: FULL_PASSES[method]]
    assert [output.reason for output in full] == [reason] * len(full)
    assert [output.pruned for output in after] == [False] * len(full) + [True, True]


@pytest.mark.parametrize('method', WITH_MEMORY)
def test_a_step_of_another_method_in_between_ends_the_memory(model, method):
    episode = make_episode()
    until_pruned(model, episode, method)

    step(model, make_input(0), episode, method='none')

    assert episode.reference is None
    assert step(model, make_input(0), episode, method=method).reason == 'parameters'


@pytest.mark.parametrize('method', [name for name in METHODS if name not in CONTEXTS])
def test_a_step_that_fails_changes_nothing(model, method):
    episode, other = make_episode(), make_episode()
    until_pruned(model, episode, method)
    until_pruned(model, other, method)
    broken = make_input(7)
    broken[0, 7, 3] = torch.nan

    with pytest.raises(NonFiniteError, match='visual tokens'):
        step(model, broken, episode, method=method)

    after, undisturbed = (
        step(model, make_input(8), memory, method=method) for memory in (episode, other)
    )
    assert torch.equal(after.hidden, undisturbed.hidden)
    assert after.reason == undisturbed.reason


@pytest.mark.parametrize('method', METHODS)
def test_two_episodes_do_not_disturb_one_another(model, method):
    alone, mixed, other = make_episode(), make_episode(), make_episode()

    for seed in range(6):
        expected = step(model, make_input(seed), alone, method=method)
        step(model, make_input(seed + 50), other, method=method)
        got = step(model, make_input(seed), mixed, method=method)

        assert torch.equal(got.hidden, expected.hidden)
        assert torch.equal(got.kept, expected.kept)


@pytest.mark.parametrize('method', METHODS)
def test_it_prunes_a_prefix_whose_action_rows_another_module_runs_afterwards(model, method):
    episode, answers = make_episode(), torch.Generator().manual_seed(0)
    layout = make_layout(action_rows=None)

    for number in range(FULL_PASSES.get(method, 0) + 2):
        pruning = PruningSettings(method=method, layer=2, refresh_threshold=-1.0)
        open_pass = run_layers(
            model,
            make_input(number),
            layout=layout,
            episode=episode,
            settings=pruning,
            stamp_s=0.0,
        )
        for layer in open_pass.late_taps:
            open_pass.observe(layer, torch.rand(20, generator=answers) / 20)
        output = open_pass.finish()

        assert output.pruned == (number >= FULL_PASSES.get(method, 0))
        assert torch.isfinite(output.hidden).all()


def test_grid_moves_on_with_every_step_and_shows_every_token(model):
    episode = make_episode()

    kept = [output.kept.tolist() for output in run(model, episode, 'grid', range(4))]

    assert sorted(token for tokens in kept for token in tokens) == list(range(20))
    assert all(sum(token < 12 for token in tokens) == 3 for tokens in kept)


@pytest.mark.parametrize('method', ['grid', 'vla_cache'])
def test_a_share_of_the_passes_can_be_left_unpruned(model, method):
    episode = make_episode()

    outputs = run(model, episode, method, range(8), full_pass_share=0.25)

    first = method == 'grid'
    assert [output.pruned for output in outputs] == [first, True, True, False] + [True] * 3 + [
        False
    ]
    plain = step(model, make_input(7), method='none')
    assert torch.equal(outputs[7].hidden, plain.hidden)


def test_sparsevlm_scores_by_the_attention_of_the_words_that_match_the_image(model):
    embeds = make_input(0)
    image = embeds[0, VISUAL].mean(dim=0)
    embeds[0, 21:26] *= 0.1
    embeds[0, [22, 24]] = 3.0 * torch.stack([image, image])

    output = step(model, embeds, method='sparsevlm')

    # FastV reads the row that is called the last, so it can read any.
    attention = [
        run_decoder(
            model,
            embeds,
            layout=make_layout(last_row=row),
            episode=make_episode(),
            settings=PruningSettings(method='fastv', layer=2),
            stamp_s=0.0,
        ).scores
        for row in (22, 24)
    ]
    torch.testing.assert_close(output.scores, torch.stack(attention).mean(dim=0))
    assert output.kept.tolist() == sorted(output.scores.topk(5).indices.tolist())


def test_divprune_keeps_what_differs_whatever_the_words_say(model):
    embeds = make_input(0)
    for token in range(6, 21):
        embeds[0, token] = embeds[0, 6]
    other_words = embeds.clone()
    other_words[0, 21:26] *= -1.0

    output = step(model, embeds, method='divprune')

    assert len(set(output.kept.tolist()) & {0, 1, 2, 3, 4}) >= 4
    assert torch.equal(output.kept, step(model, other_words, method='divprune').kept)


def test_vla_pruner_remembers_three_steps_and_forgets_the_fourth(model):
    episode = make_episode()

    outputs = run(model, episode, 'vla_pruner', range(5))

    assert [output.pruned for output in outputs] == [False, False, False, True, True]
    assert [output.reason for output in outputs] == ['episode_start'] * 3 + [None] * 2
    history = episode.reference.attention
    assert history.shape == (3, 20)
    dropped = sorted(set(range(20)) - set(outputs[4].kept.tolist()))
    assert not history[2, dropped].any()
    assert history[2, outputs[4].kept].all()
    assert history[0].all()
    assert episode.reference_stamp_s == 0.0


def test_the_oracle_keeps_the_deep_attention_of_this_very_step(model):
    embeds = make_input(3)
    whole = step(model, embeds, make_episode(), method='safe', forecast_layers=(3, 4))
    deep = [whole.report.trace.saliency[layer] for layer in (3, 4)]

    output = step(model, embeds, method='oracle', forecast_layers=(3, 4))

    torch.testing.assert_close(output.scores, torch.stack(deep).mean(dim=0))
    assert output.kept.tolist() == sorted(output.scores.topk(5).indices.tolist())


def test_matching_by_place_carries_saliency_over_unmoved(model):
    episode, moved = make_episode(), make_episode()
    before = make_input(0)
    after = before.clone()
    after[0, 1:21] = before[0, 1:21].roll(1, dims=0)
    for memory in (episode, moved):
        step(model, before, memory)

    change = {'refresh_threshold': -1.0}
    by_likeness = step(model, after, episode, **change).report.trace
    by_place = step(model, after, moved, matching='place', **change).report.trace

    assert by_likeness.match_index.tolist() == [19, *range(19)]
    assert by_place.match_index.tolist() == list(range(20))
    assert torch.equal(by_place.forecast, moved.reference.saliency)


@torch.no_grad()
def merged_pass(model, embeds, kept, *, causal, layer, more=None):
    """Run all rows up to ``layer``, then kept rows and stand-ins in a sequence of their own."""
    rows = embeds.shape[1]
    rotary = model.rotary_emb(embeds, position_ids=torch.arange(rows)[None])
    allowed = torch.ones(rows, rows, dtype=torch.bool)
    hidden = embeds
    for block in model.layers[:layer]:
        mask = (allowed.tril() if causal else allowed)[None, None]
        hidden = block(hidden, attention_mask=mask, position_embeddings=rotary)
    cells = pooling_cells(((3, 4), (2, 4)))
    places, states, counts = [0], [hidden[0, 0]], [1]
    for token in kept:
        places.append(token + 1)
        states.append(hidden[0, token + 1])
        counts.append(1)
    for cell in range(max(cells) + 1):
        members = [t for t in range(20) if cells[t] == cell and t not in kept]
        if members:
            places.append(round(sum(members) / len(members)) + 1)
            states.append(hidden[0, [t + 1 for t in members]].mean(dim=0))
            counts.append(len(members))
    for row in range(21, rows):
        places.append(row)
        states.append(hidden[0, row])
        counts.append(1)
    positions = torch.tensor(places)
    bias = torch.tensor([math.log(count) for count in counts]).expand(len(places), -1)
    if causal:
        bias = bias.masked_fill(positions[None] > positions[:, None], -torch.inf)
    hidden = torch.stack(states)[None]
    rotary = model.rotary_emb(hidden, position_ids=positions[None])
    for block in model.layers[layer:]:
        hidden = block(hidden, attention_mask=bias[None, None], position_embeddings=rotary)
    return model.norm(hidden)[0], places


@given(
    seed=st.integers(0, 1000),
    layer=st.integers(1, LAYERS - 1),
    keep_ratio=st.floats(0.05, 0.95),
    causal=st.booleans(),
)
@hypothesis_settings(max_examples=30, deadline=None)
def test_merging_equals_a_pass_over_kept_rows_and_stand_ins(seed, layer, keep_ratio, causal):
    model, episode = make_model(groups=2), make_episode()
    change = {'method': 'merge', 'layer': layer, 'keep_ratio': keep_ratio, 'causal': causal}
    step(model, make_input(seed), episode, **change)

    output = step(model, make_input(seed), episode, **change)

    kept = output.kept.tolist()
    slow, places = merged_pass(model, make_input(seed), kept, causal=causal, layer=layer)
    assert len(kept) == round(20 * keep_ratio)
    torch.testing.assert_close(output.rows(slice(0, 1))[0], slow[:1], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(output.rows(slice(21, 33))[0], slow[-12:], atol=2e-5, rtol=1e-4)
    assert places[-12:] == list(range(21, 33))


def test_a_token_decoded_after_merging_sees_stand_ins_with_their_weight(model):
    episode = make_episode()
    embeds = make_input(1)
    change = {'method': 'merge', 'causal': True}
    step(model, embeds, episode, **change)
    more = torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(3))
    output = step(model, embeds, episode, use_cache=True, **change)

    decoded = [
        decode_token(
            model,
            more[:, [index]],
            position=LENGTH + index,
            cache=output.cache,
            key_bias=output.key_bias,
        )
        for index in range(2)
    ]

    whole = torch.cat([embeds, more], dim=1)
    slow, _ = merged_pass(model, whole, output.kept.tolist(), causal=True, layer=2)
    torch.testing.assert_close(torch.cat(decoded, dim=1)[0], slow[-2:], atol=2e-5, rtol=1e-4)


def test_the_published_rule_of_vla_cache_compares_pixels_and_the_budget_tokens(model):
    def kept(rule, pixels):
        episode, change = make_episode(), {'method': 'vla_cache', 'cache_rule': rule}
        for picture in (torch.ones(20, 12), pixels):
            output = step(model, make_input(0), episode, patches=lambda p=picture: p, **change)
        return output.kept.tolist()

    still, moved = torch.ones(20, 12), torch.ones(20, 12)
    moved[:, :6] = 0.0

    assert len(kept('published', still)) < 20
    assert kept('published', moved) == list(range(20))
    assert kept('budget', still) == kept('budget', moved)


def test_vla_cache_with_a_budget_computes_what_missed_its_turn_later(model):
    episode = make_episode()
    change = {'method': 'vla_cache', 'keep_ratio': 0.2}
    step(model, make_input(0), episode, **change)

    outputs = [step(model, make_input(1), episode, **change) for _ in range(12)]

    assert outputs[0].report.ages.tolist() == [
        0.0 if i in outputs[0].kept else 1.0 for i in range(20)
    ]
    assert set().union(*(output.kept.tolist() for output in outputs)) == set(range(20))


def test_vla_cache_compares_with_the_step_before_and_not_with_this_one(model):
    change = {'method': 'vla_cache', 'cache_rule': 'published'}

    def kept(*pictures):
        episode = make_episode()
        return [
            step(model, make_input(0), episode, patches=lambda p=p: p, **change).kept.tolist()
            for p in pictures
        ][-1]

    still = torch.ones(20, 12)
    reused = max(set(range(20)) - set(kept(still, still)))  # the first that leaves
    moved = still.clone()
    moved[reused, :6] = 0.0

    assert reused in kept(still, moved)
    assert reused not in kept(still, moved, moved)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('rule', ['budget', 'published'])
def test_vla_cache_gives_the_same_states_again_for_the_same_step(model, causal, rule):
    episode = make_episode()
    change = {'method': 'vla_cache', 'cache_rule': rule, 'causal': causal}
    full = step(model, make_input(), episode, **change)

    for _ in range(3):
        again = step(model, make_input(), episode, **change)

        assert again.pruned
        assert (again.key_step, again.reason) == (False, None)
        for rows in (ACTIONS, slice(21, 26), slice(0, 1)):
            torch.testing.assert_close(again.rows(rows), full.rows(rows), atol=1e-5, rtol=1e-4)


def test_the_published_rule_computes_everything_when_everything_moved(model):
    episode = make_episode()
    change = {'method': 'vla_cache', 'cache_rule': 'published'}
    step(model, make_input(0), episode, **change)

    output = step(model, make_input(1), episode, **change)

    assert not output.pruned
    assert torch.equal(output.hidden, step(model, make_input(1), method='none').hidden)


def observations(policy, proprio, count):
    """Steps of an episode in which little changes."""
    random = np.random.default_rng(0)
    names = policy.spec.cameras or ('front', 'wrist')
    still = {name: random.integers(0, 256, (112, 112, 3), dtype=np.uint8) for name in names}
    for number in range(count):
        images = {name: image.copy() for name, image in still.items()}
        for image in images.values():
            image[10 * number : 10 * number + 30, 20:60] = 255 - 20 * number
        header = MessageHeader.at(0.4 * number)
        yield Observation(images, 'reach the red ball', proprio, dict.fromkeys(images, header))


def untrained_mini():
    torch.manual_seed(0)
    tokenizer = make_tokenizer(['reach the red ball'])
    config = MiniConfig(
        cameras={'first': 112, 'second': 84},
        patch_sizes={'first': 8, 'second': 12},
        vocab_size=tokenizer.get_vocab_size(),
        instruction_length=6,
        chunk_size=8,
        action_dim=7,
        proprio_dim=5,
        proprio_mean=[0.0] * 5,
        proprio_std=[0.1] * 5,
        hidden_size=64,
        num_attention_heads=2,
        intermediate_size=96,
    )
    settings = policy_settings(cameras=tuple(config.cameras))
    spec = PolicySpec('mini', 'mini', settings.cameras, 2, 8, config.num_hidden_layers)
    return MiniPolicy(spec, settings, MiniVla(config).eval(), tokenizer)


@pytest.fixture(scope='module')
def policies(tmp_path_factory):
    torch.set_num_threads(1)
    mini = untrained_mini()
    oft = load_policy(str(unpack_golden('set1', tmp_path_factory.mktemp('oft'))), golden_settings())
    return {'mini': (mini, 5), 'openvla_oft': (oft, 8)}


@pytest.mark.parametrize('kind', ['mini', 'openvla_oft'])
@pytest.mark.parametrize('method', METHODS)
def test_every_policy_runs_with_every_method_in_full_and_pruned(policies, kind, method):
    policy, numbers = policies[kind]
    memory = policy.new_episode()
    full = FULL_PASSES.get(method, 0)
    pruning = PruningSettings(method=method, refresh_threshold=-1.0)

    chunks = [
        policy.infer(observation, memory, pruning)
        for observation in observations(policy, np.full(numbers, 0.1), full + 2)
    ]

    assert all(chunk.is_finite() for chunk in chunks)
    ratios = [chunk.record.pruning_ratio for chunk in chunks]
    assert ratios[:full] == [0.0] * full
    assert all(ratio == pytest.approx(0.75, abs=0.02) for ratio in ratios[full:])
    shares = [c.record.decoder_macs / c.record.decoder_macs_full for c in chunks]
    assert shares[:full] == [1.0] * full
    assert all(share < (1.9 if method == 'oracle' else 0.99) for share in shares[full:])


@pytest.mark.parametrize('kind', ['mini', 'openvla_oft'])
def test_every_policy_gives_vla_cache_its_pixels(policies, kind):
    policy, numbers = policies[kind]
    memory = policy.new_episode()
    pruning = PruningSettings(method='vla_cache', cache_rule='published')

    records = [
        policy.infer(observation, memory, pruning).record
        for observation in observations(policy, np.full(numbers, 0.1), 3)
    ]

    # A strip of the image has moved; some of the rest is relevant; nothing else is computed.
    assert all(0.0 < record.pruning_ratio < 150 / 256 for record in records[1:])
