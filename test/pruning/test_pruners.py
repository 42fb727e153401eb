"""Every registered pruner behind the one seam."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.errors import NonFiniteError, ParameterError
from safe_vla_ros.pruning import PRUNER_NAMES, SequenceLayout, StepInput, make_episode, make_pruner
from safe_vla_ros.types import PruningSettings

LAYERS = 6
TOTAL = 20


def make_tokens(seed):
    return torch.randn(TOTAL, 16, generator=torch.Generator().manual_seed(seed))


def make_saliency(seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    return {layer: torch.rand(TOTAL, generator=generator) / TOTAL for layer in range(LAYERS)}


def drive(episode, tokens, saliency, stamp_s=0.0, **change):
    """Follow a pass as a decoder would; returns kept indices (None for all) and the report."""
    step_settings = PruningSettings(**{'layer': 3, 'keep_ratio': 0.25, **change})
    embeddings = torch.cat([tokens, torch.zeros(3, tokens.shape[1])])
    total = len(tokens)
    layout = SequenceLayout(
        total + 3, slice(0, total), (total,), total + 2, slice(total + 1, total + 2)
    )
    step_input = StepInput(embeddings, layout, LAYERS, step_settings, stamp_s)
    step = make_pruner(step_settings.method).begin(step_input, episode)
    plan = step.plan
    kept = None
    read = []
    for layer in range(LAYERS):
        if layer in plan.selections:
            kept = step.select(layer).kept
            assert len(kept) == plan.selections[layer]
        if layer in plan.taps:
            read.append((layer, plan.taps[layer].rows))
            step.observe(layer, saliency[layer])
        if layer == plan.decision:
            plan = step.decide()
    return kept, step.finish(None), read


def test_the_registry_names_its_methods_when_asked_for_another():
    with pytest.raises(
        ParameterError, match=r"pruning\.method is 'magic', allowed is one of safe, n"
    ):
        make_pruner('magic')


@pytest.mark.parametrize('method', PRUNER_NAMES)
def test_keep_ratio_1_keeps_everything(method):
    episode = make_episode()

    for _ in range(2):
        kept, _, _ = drive(episode, make_tokens(0), make_saliency(0), method=method, keep_ratio=1.0)

        assert kept is None


def test_none_reads_nothing_and_keeps_everything():
    kept, report, read = drive(make_episode(), make_tokens(0), make_saliency(0), method='none')

    assert (kept, read) == (None, [])
    assert (report.key_step, report.reason, report.scores) == (False, None, None)


def test_fastv_keeps_what_the_last_row_attends_to_at_the_shallow_layer():
    saliency = make_saliency(0)

    kept, report, read = drive(make_episode(), make_tokens(0), saliency, method='fastv')

    assert read == [(2, 'last')]
    assert kept.tolist() == sorted(saliency[2].topk(5).indices.tolist())
    assert torch.equal(report.scores, saliency[2])


def test_random_advances_with_every_step_and_repeats_with_its_seed():
    def run(seed):
        episode = make_episode()
        return [
            drive(episode, make_tokens(0), make_saliency(0), method='random', seed=seed)[0].tolist()
            for _ in range(3)
        ]

    first = run(7)

    assert first == run(7)
    assert first != run(8)
    assert first[0] != first[1] != first[2]
    assert all(kept == sorted(set(kept)) and len(kept) == 5 for kept in first)


def test_random_can_leave_a_share_of_the_passes_unpruned():
    episode = make_episode()

    passes = [
        drive(episode, make_tokens(0), make_saliency(0), method='random', full_pass_share=0.25)[0]
        for _ in range(200)
    ]

    share = sum(kept is None for kept in passes) / len(passes)
    assert 0.17 < share < 0.33


def test_the_first_step_is_a_key_step_and_shows_shallow_saliency():
    episode = make_episode()
    saliency = make_saliency(0)

    kept, report, read = drive(episode, make_tokens(0), saliency, stamp_s=4.5)

    assert kept is None
    assert (report.key_step, report.reason, report.similarity) == (True, 'episode_start', None)
    assert torch.equal(report.scores, saliency[2])
    assert read == [(2, 'action'), (5, 'action')]
    assert episode.reference_stamp_s == 4.5
    assert torch.equal(episode.reference.saliency, torch.stack([saliency[2], saliency[5]]))


def test_the_same_step_again_is_pruned_with_similarity_1_and_the_memory_stays():
    episode = make_episode()
    tokens, saliency = make_tokens(0), make_saliency(0)
    drive(episode, tokens, saliency)
    reference = episode.reference

    kept, report, read = drive(episode, tokens, saliency, stamp_s=9.0)

    assert report.similarity == pytest.approx(1.0, abs=1e-6)
    assert (report.key_step, report.reason) == (False, None)
    assert read == [(2, 'action')]
    assert episode.reference is reference
    expected = 0.5 * saliency[2] + 0.5 * saliency[5]
    torch.testing.assert_close(report.scores, expected)
    assert kept.tolist() == sorted(expected.topk(5).indices.tolist())


def test_attention_that_left_its_forecast_makes_a_key_step_of_that_step():
    episode = make_episode()
    drive(episode, make_tokens(0), make_saliency(0))
    tokens, saliency = make_tokens(1), make_saliency(1)

    kept, report, _ = drive(episode, tokens, saliency, stamp_s=3.0, refresh_threshold=0.95)

    assert (kept, report.reason) == (None, 'attention_shift')
    assert report.similarity < 0.95
    assert episode.reference_stamp_s == 3.0
    assert torch.equal(episode.reference.saliency[1], saliency[5])
    torch.testing.assert_close(
        episode.reference.tokens, torch.nn.functional.normalize(tokens, dim=1)
    )


def test_a_forecast_layer_before_the_decision_is_stored_when_the_step_turns_out_key():
    episode = make_episode()
    change = {'forecast_layers': (1, 5), 'refresh_threshold': 0.99}
    drive(episode, make_tokens(0), make_saliency(0), **change)
    saliency = make_saliency(1)

    _, report, _ = drive(episode, make_tokens(1), saliency, **change)

    assert report.reason == 'attention_shift'
    assert episode.reference.layers == (2, 1, 5)
    expected = torch.stack([saliency[2], saliency[1], saliency[5]])
    assert torch.equal(episode.reference.saliency, expected)


def test_reference_fusion_decides_at_layer_0_with_the_last_row_and_sums_all_remembered():
    episode = make_episode()
    change = {
        'fusion': 'reference',
        'forecast_layers': (0, 5),
        'fusion_weight': 0.8,
        'refresh_threshold': 0.5,
    }
    tokens, saliency = make_tokens(0), make_saliency(0)
    _, first, read_key = drive(episode, tokens, saliency, **change)

    kept, report, read = drive(episode, tokens, saliency, **change)

    assert first.key_step
    assert read_key == [(0, 'last'), (2, 'action'), (5, 'action')]
    assert read == [(0, 'last'), (2, 'action')]
    expected = saliency[2] + 0.8 * (saliency[0] + saliency[5]) / 2
    torch.testing.assert_close(report.scores, expected)
    assert kept.tolist() == sorted(expected.topk(5).indices.tolist())


@given(seed=st.integers(0, 10_000), order=st.permutations(range(TOTAL)))
@settings(max_examples=40, deadline=None)
def test_permuting_tokens_and_saliency_together_permutes_the_kept_set(seed, order):
    order = list(order)
    episode = make_episode()
    drive(episode, make_tokens(seed), make_saliency(seed))
    moved = make_tokens(seed) + 0.1 * make_tokens(seed + 1)
    saliency = make_saliency(seed + 1)
    permuted = {layer: values[order] for layer, values in saliency.items()}

    kept, _, _ = drive(episode, moved, saliency, refresh_threshold=-1.0)
    kept_permuted, _, _ = drive(episode, moved[order], permuted, refresh_threshold=-1.0)

    assert {order[index] for index in kept_permuted.tolist()} == set(kept.tolist())


@pytest.mark.parametrize(
    'change',
    [
        {'layer': 2},
        {'refresh_layer': 1},
        {'forecast_layers': (4,)},
        {'fusion': 'reference'},
        {'query_rows': 'last'},
        {'method': 'none'},
    ],
)
def test_a_change_of_what_is_remembered_makes_a_key_step(change):
    episode = make_episode()
    drive(episode, make_tokens(0), make_saliency(0))

    _, changed, _ = drive(episode, make_tokens(0), make_saliency(0), **change)
    _, back, _ = drive(episode, make_tokens(0), make_saliency(0))

    assert changed.reason == (None if 'method' in change else 'parameters')
    assert back.reason == 'parameters'


@pytest.mark.parametrize(
    'change', [{'keep_ratio': 0.5}, {'fusion_weight': 0.1}, {'refresh_threshold': 0.2}]
)
def test_a_change_of_ratio_weight_or_threshold_keeps_the_reference(change):
    episode = make_episode()
    drive(episode, make_tokens(0), make_saliency(0))

    _, report, _ = drive(episode, make_tokens(0), make_saliency(0), **change)

    assert not report.key_step


def test_another_number_of_tokens_makes_a_key_step():
    episode = make_episode()
    drive(episode, make_tokens(0), make_saliency(0))
    fewer = {layer: values[:12] for layer, values in make_saliency(0).items()}

    _, report, _ = drive(episode, make_tokens(0)[:12], fewer)

    assert report.reason == 'layout'


def test_non_finite_attention_at_the_refresh_layer_is_named_and_nothing_is_stored():
    episode = make_episode()
    drive(episode, make_tokens(0), make_saliency(0))
    reference = episode.reference
    saliency = make_saliency(0)
    saliency[2][4] = torch.nan

    with pytest.raises(NonFiniteError, match='attention of decoder layer 2'):
        drive(episode, make_tokens(0), saliency)

    assert episode.reference is reference
    assert episode.steps == 1
