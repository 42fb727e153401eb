"""What the bundled policy is told: LIBERO-Spatial's own sentences, and others like them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_vla_ros.sim.tasks import SPATIAL, get_task, task_name, task_names

if TYPE_CHECKING:
    import numpy as np

_BEFORE, _AFTER = 'pick up the black bowl ', ' and place it on the plate'
_OTHER_PHRASINGS = (
    'put the black bowl {place} on the plate',
    'move the black bowl {place} to the plate',
    'take the black bowl {place} and put it on the plate',
    'grasp the bowl {place} and set it on the plate',
    'pick up the bowl {place} and put it down on the plate',
)
_OFFICIAL_SHARE = 0.5


def phrasings(sentence: str) -> tuple[str, ...]:
    """Return an official sentence and what else can be said instead.

    Raises:
        ValueError: It is not one of LIBERO-Spatial's sentences.
    """
    if not (sentence.startswith(_BEFORE) and sentence.endswith(_AFTER)):
        msg = f'{sentence!r} is not a sentence of {SPATIAL}'
        raise ValueError(msg)
    place = sentence[len(_BEFORE) : -len(_AFTER)]
    return (sentence, *(phrasing.format(place=place) for phrasing in _OTHER_PHRASINGS))


def draw_phrasing(sentence: str, random: np.random.Generator) -> str:
    """Draw how to say a sentence: half of the time as LIBERO does."""
    official, *others = phrasings(sentence)
    if random.random() < _OFFICIAL_SHARE:
        return official
    return others[int(random.integers(len(others)))]


def sentence_of(scene: int, bowl: int) -> str:
    """Return the official sentence for a bowl (0 or 1, the order of ``BOWLS``) of a scene."""
    return get_task(task_name(SPATIAL, scene, other_bowl=bool(bowl))).sentence


def vocabulary_sentences() -> list[str]:
    """Return sentences with every word that the policy's tokenizer knows."""
    official = [get_task(name).sentence for name in task_names(SPATIAL)]
    return [text for sentence in official for text in phrasings(sentence)]
