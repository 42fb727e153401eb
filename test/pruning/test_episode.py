"""Memory of one episode."""

import pytest
import torch

from safe_vla_ros.pruning.episode import SaliencyReference, Signature, make_episode
from safe_vla_ros.types import REFRESH_REASONS, EpisodeMemory

SIGNATURE = Signature(method=('safe', 3), layout=((4,), 8))


def make_reference(stamp_s=1.5):
    return SaliencyReference(torch.eye(4), torch.rand(2, 4), (2, 5), stamp_s, 0)


def test_a_new_episode_is_an_empty_memory_that_starts():
    episode = make_episode()

    assert isinstance(episode, EpisodeMemory)
    assert episode.reference_stamp_s is None
    assert episode.refresh_reason(SIGNATURE) == 'episode_start'


def test_a_reference_holds_until_it_is_cleared():
    episode = make_episode()
    episode.remember(make_reference(), SIGNATURE, 'episode_start')

    episode.advance(SIGNATURE)

    assert episode.refresh_reason(SIGNATURE) is None
    assert episode.reference_stamp_s == 1.5
    assert (episode.steps, dict(episode.key_steps)) == (2, {'episode_start': 1})


@pytest.mark.parametrize('reason', REFRESH_REASONS)
def test_clearing_forgets_and_keeps_the_reason(reason):
    episode = make_episode()
    episode.remember(make_reference(), SIGNATURE, 'episode_start')

    episode.clear(reason)

    assert episode.reference_stamp_s is None
    assert episode.refresh_reason(SIGNATURE) == reason
    assert episode.steps == (0 if reason == 'episode_start' else 1)


def test_an_unknown_reason_is_refused():
    with pytest.raises(ValueError, match=r"reason is 'bored', allowed are episode_start"):
        make_episode().clear('bored')


@pytest.mark.parametrize(
    ('signature', 'reason'),
    [
        (Signature(('safe', 4), SIGNATURE.layout), 'parameters'),
        (Signature(SIGNATURE.method, ((5,), 8)), 'layout'),
        (Signature(('fastv',), ((5,), 8)), 'layout'),
    ],
)
def test_a_changed_signature_asks_for_a_key_step_and_changes_nothing_yet(signature, reason):
    episode = make_episode()
    reference = make_reference()
    episode.remember(reference, SIGNATURE, 'episode_start')

    assert episode.refresh_reason(signature) == reason
    assert episode.reference is reference
    assert episode.refresh_reason(SIGNATURE) is None


def test_a_step_of_another_method_ends_the_reference():
    episode = make_episode()
    episode.remember(make_reference(), SIGNATURE, 'episode_start')

    episode.advance(Signature(('none',), SIGNATURE.layout))

    assert episode.reference_stamp_s is None
    assert episode.refresh_reason(SIGNATURE) == 'parameters'
