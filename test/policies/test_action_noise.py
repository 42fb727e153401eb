"""An episode repeats its noise from its beginning, and a failed pass takes none of it."""

from __future__ import annotations

import pytest
import torch

from safe_vla_ros.policies.action_noise import NoisyEpisode
from safe_vla_ros.types import EpisodeMemory


def draw(episode: NoisyEpisode, *shape: int) -> torch.Tensor:
    with episode.noise(*shape) as noise:
        return noise


def test_two_episodes_of_one_seed_draw_the_same_noise_in_the_same_order() -> None:
    one, other = NoisyEpisode(7), NoisyEpisode(7)
    assert isinstance(one, EpisodeMemory)
    assert torch.equal(draw(one, 16, 7), draw(other, 16, 7))
    second = draw(one, 16, 7)
    assert torch.equal(second, draw(other, 16, 7))
    assert not torch.equal(second, draw(one, 16, 7))
    assert not torch.equal(draw(NoisyEpisode(7), 16, 7), draw(NoisyEpisode(8), 16, 7))


def test_only_the_start_of_an_episode_begins_its_noise_again() -> None:
    episode = NoisyEpisode(3)
    first, second = draw(episode, 4), draw(episode, 4)
    episode.clear('instruction')
    assert not torch.equal(draw(episode, 4), first)
    episode.clear('episode_start')
    assert torch.equal(draw(episode, 4), first)
    assert torch.equal(draw(episode, 4), second)


def test_a_pass_that_fails_takes_no_noise() -> None:
    episode = NoisyEpisode(3)
    first = draw(NoisyEpisode(3), 4)

    def fail() -> None:
        with episode.noise(4) as noise:
            assert torch.equal(noise, first)
            raise RuntimeError('lost')

    with pytest.raises(RuntimeError, match='lost'):
        fail()
    assert torch.equal(draw(episode, 4), first)


def test_noise_may_be_given_instead() -> None:
    known = torch.arange(8.0).view(2, 4)
    episode = NoisyEpisode(0, draw=known.view)
    assert torch.equal(draw(episode, 4, 2), known.view(4, 2))
