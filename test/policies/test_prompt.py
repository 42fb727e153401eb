"""Prompt and tokenizer."""

import pytest
from openvla_checkpoints import write_tokenizer
from tokenizers import Tokenizer, models

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.prompt import BEGIN_ID, EMPTY_ID, PromptEncoder, complete_prompt


def test_the_prompt_is_that_of_training(tmp_path):
    write_tokenizer(tmp_path)
    ids = PromptEncoder(tmp_path).encode('Pick up the BOWL')
    tokenizer = Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
    text = 'In: What action should the robot take to pick up the bowl?\nOut:'
    assert ids == [*tokenizer.encode(text).ids, EMPTY_ID]
    assert ids[0] == BEGIN_ID


def test_braces_in_an_instruction_are_only_text(tmp_path):
    write_tokenizer(tmp_path)
    assert PromptEncoder(tmp_path).encode('pick {up} {') != PromptEncoder(tmp_path).encode('pick')


def test_another_template_is_used_when_the_checkpoint_needs_it(tmp_path):
    write_tokenizer(tmp_path)
    ids = PromptEncoder(tmp_path, 'robot {instruction}').encode('take plate')
    assert ids == complete_prompt(
        PromptEncoder(tmp_path, 'robot take {instruction}').encode('plate')
    )


@pytest.mark.parametrize('ids', [[5], [1, 5], [5, EMPTY_ID], [1, 5, EMPTY_ID]])
def test_begin_and_space_marker_are_added_once(ids):
    assert complete_prompt(ids) == [1, 5, EMPTY_ID]


def test_nothing_is_read_before_text_is_encoded(tmp_path):
    PromptEncoder(tmp_path)


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [(None, 'tokenizer.json is missing; it is needed to encode'), ('{}', 'is not a tokenizer')],
)
def test_a_missing_or_broken_tokenizer_is_named(tmp_path, content, sentence):
    if content is not None:
        (tmp_path / 'tokenizer.json').write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        PromptEncoder(tmp_path).check()


def test_the_slow_tokenizer_alone_gets_a_hint(tmp_path):
    (tmp_path / 'tokenizer.model').write_bytes(b'')
    with pytest.raises(CheckpointError, match='save the fast tokenizer'):
        PromptEncoder(tmp_path).check()


def test_ids_beyond_the_embedding_are_refused(tmp_path):
    Tokenizer(models.WordLevel({'a': 40000}, unk_token='a')).save(str(tmp_path / 'tokenizer.json'))
    with pytest.raises(CheckpointError, match='ids up to 40000; the decoder embeds 32064'):
        PromptEncoder(tmp_path).check()
