"""What `refresh` renews, and when it renews everything."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_vla_ros.errors import NonFiniteError, ParameterError
from safe_vla_ros.layer_plan import saliency_layers
from safe_vla_ros.pruning import SequenceLayout, StepInput, make_episode, make_pruner
from safe_vla_ros.pruning.pruners.refresh import (
    moved_tokens,
    relative_change,
    renewal_score,
    stale_share,
    token_change,
)
from safe_vla_ros.types import REFRESH_SCORES, PruningSettings

TOTAL, WIDTH, LAYERS = 20, 16, 6
LENGTH = TOTAL + 3


def make_tokens(seed):
    return torch.randn(TOTAL, WIDTH, generator=torch.Generator().manual_seed(seed))


def make_saliency(seed):
    generator = torch.Generator().manual_seed(1000 + seed)
    return torch.rand(TOTAL, generator=generator) / TOTAL


def drive(episode, tokens, saliency=None, *, stamp_s=0.0, length=LENGTH, **change):
    """Follow a pass as a decoder would; returns the plan, what was renewed, and the report."""
    saliency = make_saliency(0) if saliency is None else saliency
    change = {'method': 'refresh', 'keep_ratio': 0.25, **change}
    text = torch.zeros(length - len(tokens), WIDTH)
    layout = SequenceLayout(
        length,
        slice(0, len(tokens)),
        (len(tokens) - 8, 8),
        length - 1,
        slice(length - 2, length - 1),
    )
    step = make_pruner('refresh').begin(
        StepInput(torch.cat([tokens, text]), layout, LAYERS, PruningSettings(**change), stamp_s),
        episode,
    )
    renewed = step.select(0).kept if 0 in step.plan.selections else None
    for layer in step.plan.taps:
        step.observe(layer, saliency)
    return step.plan, renewed, step.finish(step.context)


def test_a_hand_computed_step():
    stored = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [1.0, 0.0]])
    tokens = torch.tensor([[3.0, 4.0], [3.0, 1.0], [0.0, 4.0], [1.0, 0.0]])
    ages = torch.tensor([0.0, 2.0, 10.0, 0.0])
    saliency = torch.tensor([0.1, 0.4, 0.2, 0.3])

    change = token_change(tokens, stored)
    score = renewal_score(change, ages, saliency, age_weight=0.1, kind='salient_and_changed')
    stale = stale_share(tokens, change, saliency, torch.tensor([1]))

    assert change.tolist() == [5, 1, 0, 0]  # mean 1.5
    torch.testing.assert_close(score, torch.tensor([0.1 * 5, 0.4 * 1.3, 0.2 * 1.5, 0.0]))
    norms = [5, 10**0.5, 4, 1]
    attended = sum(s * n for s, n in zip(saliency.tolist(), norms, strict=True))
    assert stale.item() == pytest.approx(0.1 * 5 / attended)


def test_scores_for_comparison_are_its_factors():
    change, ages, saliency = torch.rand(3, TOTAL)

    def score(kind):
        return renewal_score(change, ages, saliency, age_weight=0.1, kind=kind)

    assert torch.equal(score('saliency'), saliency)
    assert torch.equal(score('age'), ages)
    torch.testing.assert_close(score('change'), change + 0.1 * change.mean() * ages)
    torch.testing.assert_close(score('salient_and_changed'), saliency * score('change'))


def test_change_is_measured_against_the_cameras_own_mean():
    change = torch.tensor([1.0, 3.0, 10.0, 20.0, 30.0, 0.0, 0.0])

    relative = relative_change(change, (2, 3, 2))

    torch.testing.assert_close(relative, torch.tensor([0.5, 1.5, 0.5, 1.0, 1.5, 0.0, 0.0]))


def test_what_has_moved_is_found_in_its_own_camera_and_only_where_it_is_nearer():
    stored = torch.eye(6)
    tokens = stored[[1, 0, 2, 5, 0, 3]].clone()
    tokens[2] += 0.1

    source = moved_tokens(tokens, stored, (3, 3))

    # Token 4 shows what stood in the other camera: nothing of its own is nearer than what it has.
    assert source.tolist() == [1, 0, 2, 5, 4, 3]


def test_what_has_moved_takes_its_memory_along():
    episode = make_episode()
    before = make_tokens(0)
    drive(episode, before, make_saliency(0))
    after = before.clone()
    after[:12] = before[:12].roll(1, dims=0)  # the first camera's view shifts

    still, _, plain = drive(episode, after, refresh_score='age')
    drive(episode, before, make_saliency(0), keep_ratio=1.0)
    plan, _, report = drive(episode, after, forecast_moved=True)

    assert (still.moves, plan.moves) == (False, True)
    assert plain.residual > 0.1
    assert report.residual == 0.0
    assert torch.equal(episode.reference.tokens, after)


def test_a_camera_that_moves_does_not_starve_one_at_rest():
    episode, other = make_episode(), make_episode()
    before = make_tokens(0)
    after = before.clone()
    after[12:] += 5.0  # the second camera moves
    after[3] += 0.5  # something small happens in the first
    even = torch.full((TOTAL,), 1 / TOTAL)
    drive(episode, before, even)
    drive(other, before, even)

    _, plain, _ = drive(episode, after, even)
    _, per_camera, _ = drive(other, after, even, change_per_camera=True)

    assert 3 not in plain.tolist()
    assert 3 in per_camera.tolist()


def test_the_first_step_computes_everything_and_remembers_it():
    episode = make_episode()
    tokens, saliency = make_tokens(0), make_saliency(0)

    plan, renewed, report = drive(episode, tokens, saliency, stamp_s=4.5)

    assert (plan.context, dict(plan.selections), plan.decision) == (True, {}, None)
    assert renewed is None
    assert (report.key_step, report.reason, report.residual) == (True, 'episode_start', None)
    assert torch.equal(report.scores, saliency)
    assert not report.ages.any()
    assert episode.reference_stamp_s == 4.5
    assert torch.equal(episode.reference.tokens, tokens)
    torch.testing.assert_close(episode.reference.saliency, saliency)


def test_what_changed_and_is_attended_to_is_renewed_and_only_that():
    episode = make_episode()
    before = make_tokens(0)
    drive(episode, before, stamp_s=1.0)
    after = before.clone()
    after[[2, 5, 7, 11, 17]] += 1.0

    plan, renewed, report = drive(episode, after, stamp_s=2.0)

    assert dict(plan.selections) == {0: 5}
    assert renewed.tolist() == [2, 5, 7, 11, 17]
    assert (report.key_step, report.reason) == (False, None)
    assert report.residual == 0.0
    assert torch.equal(episode.reference.tokens, after)
    assert report.ages.tolist() == [0.0 if i in renewed.tolist() else 1.0 for i in range(TOTAL)]
    assert episode.reference_stamp_s == 1.0


def test_a_token_that_stays_stale_keeps_the_token_its_keys_belong_to():
    episode = make_episode()
    before = make_tokens(0)
    drive(episode, before)

    _, renewed, report = drive(episode, make_tokens(1))

    stale = [i for i in range(TOTAL) if i not in renewed.tolist()]
    assert torch.equal(episode.reference.tokens[stale], before[stale])
    assert torch.equal(episode.reference.tokens[renewed], make_tokens(1)[renewed])
    assert report.residual > 0.1


def test_too_much_left_stale_computes_everything():
    episode = make_episode()
    drive(episode, make_tokens(0), stamp_s=1.0)

    plan, renewed, report = drive(episode, make_tokens(1), stamp_s=2.0, max_staleness=0.1)

    assert (dict(plan.selections), renewed) == ({}, None)
    assert (report.key_step, report.reason) == (True, 'attention_shift')
    assert report.residual > 0.1
    assert not report.ages.any()
    assert torch.equal(episode.reference.tokens, make_tokens(1))
    assert episode.reference_stamp_s == 2.0


@given(
    seed=st.integers(0, 10_000), keep=st.floats(0.05, 0.95), kind=st.sampled_from(REFRESH_SCORES)
)
@settings(max_examples=40, deadline=None)
def test_exactly_m_ascending_tokens_are_renewed_and_the_others_grow_older(seed, keep, kind):
    episode = make_episode()
    drive(episode, make_tokens(seed))

    for step in range(3):
        before = episode.reference.ages.clone()
        plan, renewed, report = drive(
            episode, make_tokens(seed + step), keep_ratio=keep, refresh_score=kind
        )

        if round(keep * TOTAL) == TOTAL:
            assert renewed is None
            continue
        assert renewed.tolist() == sorted(set(renewed.tolist()))
        assert len(renewed) == round(keep * TOTAL) == plan.selections[0]
        expected = before + 1
        expected[renewed] = 0
        assert torch.equal(report.ages, expected)
        assert report.residual >= 0.0


def test_age_brings_every_token_round_when_all_changes_are_alike():
    episode = make_episode()
    even = torch.full((TOTAL,), 1 / TOTAL)
    generator = torch.Generator().manual_seed(5)
    tokens = make_tokens(0)
    drive(episode, tokens, even)

    for _ in range(40):
        noise = 0.1 * torch.randn(TOTAL, WIDTH, generator=generator)
        _, _, report = drive(episode, tokens + noise, even)

    assert report.ages.max() < 12


def test_a_shuffled_saliency_is_another_in_every_step_and_the_same_again_with_its_seed():
    def run(seed):
        episode = make_episode()
        drive(episode, make_tokens(0))
        change = {'refresh_score': 'shuffled', 'seed': seed, 'age_weight': 0.0}
        return [drive(episode, make_tokens(s), **change)[2].scores.tolist() for s in (1, 1)]

    assert run(3) == run(3)
    assert run(3) != run(4)


@pytest.mark.parametrize('reason', ['service', 'instruction', 'observation_gap', 'max_age'])
def test_a_cleared_memory_computes_everything_with_the_reason(reason):
    episode = make_episode()
    drive(episode, make_tokens(0))

    episode.clear(reason)

    assert episode.context_bytes == 0
    _, renewed, report = drive(episode, make_tokens(0))
    assert (renewed, report.reason) == (None, reason)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'saliency_layers': (1, 2)}, 'parameters'),
        ({'query_rows': 'last'}, 'parameters'),
    ],
)
def test_a_change_of_what_is_remembered_computes_everything(change, reason):
    episode = make_episode()
    drive(episode, make_tokens(0))

    _, renewed, report = drive(episode, make_tokens(0), **change)

    assert (renewed, report.reason) == (None, reason)


@pytest.mark.parametrize(
    'change',
    [
        {'keep_ratio': 0.5},
        {'age_weight': 0.3},
        {'max_staleness': 0.9},
        {'refresh_score': 'age'},
        {'change_per_camera': True},
        {'forecast_moved': True},
        {'layer': 2},
        {'length': LENGTH + 1},
    ],
)
def test_a_change_of_what_is_chosen_keeps_the_memory(change):
    episode = make_episode()
    drive(episode, make_tokens(0))

    _, _, report = drive(episode, make_tokens(0), **change)

    assert not report.key_step


def test_a_step_that_does_not_finish_leaves_no_memory():
    episode = make_episode()
    drive(episode, make_tokens(0))
    layout = SequenceLayout(LENGTH, slice(0, TOTAL), (12, 8), LENGTH - 1, slice(21, 22))
    embeddings = torch.cat([make_tokens(1), torch.zeros(3, WIDTH)])
    inputs = StepInput(embeddings, layout, LAYERS, PruningSettings(method='refresh'), 0.0)

    make_pruner('refresh').begin(inputs, episode)

    assert episode.reference_stamp_s is None
    _, renewed, report = drive(episode, make_tokens(1))
    assert (renewed, report.reason) == (None, 'failure')


def test_tokens_that_are_not_finite_are_refused_before_the_memory_is_touched():
    episode = make_episode()
    drive(episode, make_tokens(0))
    reference = episode.reference
    tokens = make_tokens(0)
    tokens[4, 2] = torch.nan

    with pytest.raises(NonFiniteError, match='visual tokens: NaN or infinity'):
        drive(episode, tokens)

    assert episode.reference is reference
    assert drive(episode, make_tokens(0))[2].reason is None


def test_saliency_is_read_at_the_layers_asked_for_or_at_up_to_eight_deep_ones():
    plan, _, _ = drive(make_episode(), make_tokens(0), saliency_layers=(0, 3))
    assert {layer: tap.rows for layer, tap in plan.taps.items()} == {0: 'last', 3: 'action'}

    assert saliency_layers(PruningSettings(), 8) == (2, 3, 4, 5, 6, 7)
    assert saliency_layers(PruningSettings(), 32) == (8, 11, 15, 18, 21, 24, 28, 31)
    assert saliency_layers(PruningSettings(), 1) == (0,)
    with pytest.raises(ParameterError, match=r'pruning.saliency_layers = \[8\]: must be 0 to 7'):
        saliency_layers(PruningSettings(saliency_layers=(8,)), 8)
