"""Episodes on disk: whole lines, one writer, found by what they depend on."""

from dataclasses import replace

import pytest

from safe_vla_ros.bench.episode_journal import (
    EpisodeJournal,
    digest_code,
    digest_policy,
    episode_key,
)
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.sim.closed_loop import resolve_episode
from safe_vla_ros.sim.evaluate import EpisodeJob, EpisodeSummary
from safe_vla_ros.sim.expert_policy import EXPERT_SPEC


def summary(**changes):
    fields = {
        'task': 'libero_spatial/0',
        'seed': 1,
        'init_state': None,
        'method': 'safe',
        'success': True,
        'duration_s': 2.0,
        'inferences': 10,
        'key_steps': {'episode_start': 1},
        'full_passes': 1,
        'tokens_kept': 50,
        'tokens_total': 100,
        'decoder_macs': 5,
        'decoder_macs_full': 10,
        'similarities': [],
        'starved_s': 0.0,
    }
    return EpisodeSummary(**{**fields, **changes})


def job(**changes):
    values = {'pruning.method': 'safe', **changes.pop('values', {})}
    settings = resolve_episode(EXPERT_SPEC, values)
    return EpisodeJob('somewhere', 'libero_spatial/0', 1, settings, **changes)


def test_what_was_added_is_found_again(tmp_path):
    path = tmp_path / 'out' / 'episodes.jsonl'
    with EpisodeJournal(path) as journal:
        journal.add('one', summary(similarities=[0.5]), code='c')
        assert journal.find('one').success
    with EpisodeJournal(path) as journal:
        assert journal.find('one') == summary()
        assert journal.find('two') is None
        assert journal.code_of('one') == 'c'
        assert len(journal) == 1
        assert not journal.repaired


def test_a_line_that_was_half_written_is_taken_off(tmp_path):
    path = tmp_path / 'episodes.jsonl'
    with EpisodeJournal(path) as journal:
        journal.add('one', summary(), code='c')
        journal.add('two', summary(), code='c')
    path.write_bytes(path.read_bytes()[:-20])
    with EpisodeJournal(path) as journal:
        assert journal.repaired
        assert journal.find('two') is None
        journal.add('three', summary(), code='c')
    with EpisodeJournal(path) as journal:
        assert not journal.repaired
        assert (journal.find('one'), journal.find('three')) == (summary(), summary())


def test_an_archive_holds_what_was_run_elsewhere(tmp_path):
    archive = tmp_path / 'episodes.jsonl.gz'
    with EpisodeJournal(tmp_path / 'here' / 'episodes.jsonl', archive=archive) as journal:
        journal.add('one', summary(), code='c')
        journal.write_archive(archive)
    first = archive.read_bytes()
    with EpisodeJournal(tmp_path / 'there' / 'episodes.jsonl', archive=archive) as journal:
        assert journal.find('one') == summary()
        journal.write_archive(archive)
        assert archive.read_bytes() == first
        journal.add('two', summary(success=False), code='d')
        journal.write_archive(archive)
    with EpisodeJournal(tmp_path / 'x', read_only=True, archive=archive) as journal:
        assert [journal.code_of(key) for key in ('one', 'two')] == ['c', 'd']


def test_a_broken_archive_is_named_and_left_alone(tmp_path):
    archive = tmp_path / 'episodes.jsonl.gz'
    with EpisodeJournal(tmp_path / 'episodes.jsonl') as journal:
        journal.add('one', summary(), code='c')
        journal.write_archive(archive)
    half = archive.read_bytes()[:-10]
    archive.write_bytes(half)
    with pytest.raises(SafeVlaError, match=r'episodes\.jsonl\.gz is not a whole archive'):
        EpisodeJournal(tmp_path / 'another' / 'episodes.jsonl', archive=archive)
    assert archive.read_bytes() == half


def test_only_one_run_writes_to_a_file(tmp_path):
    path = tmp_path / 'episodes.jsonl'
    with EpisodeJournal(path), pytest.raises(SafeVlaError, match='another run writes to'):
        EpisodeJournal(path)


def test_a_file_is_read_while_another_run_writes(tmp_path):
    path = tmp_path / 'episodes.jsonl'
    with EpisodeJournal(path) as journal:
        journal.add('one', summary(), code='c')
        with EpisodeJournal(path, read_only=True) as reader:
            assert reader.find('one') == summary()


def test_another_file_is_refused(tmp_path):
    path = tmp_path / 'episodes.jsonl'
    path.write_text('{"key": "one"}\nhello\n', encoding='utf-8')
    with pytest.raises(SafeVlaError, match='line 2 is not an episode'):
        EpisodeJournal(path)


@pytest.mark.parametrize(
    'changes',
    [
        {'values': {'pruning.keep_ratio': 0.5}},
        {'values': {'execute_steps': 2}},
        {'init_state': 3},
        {'latency_seed': 4},
        {'told': ''},
        {'disturbance': 'stopped'},
        {'compare': True},
    ],
)
def test_an_episode_is_known_by_everything_that_it_depends_on(changes):
    assert episode_key(job(**changes), 'digest') != episode_key(job(), 'digest')


def test_settings_that_a_method_does_not_read_are_no_part_of_its_name():
    tau = {'pruning.max_staleness': 0.5}
    plain = {'pruning.keep_ratio': 0.5}
    for method, same in (('safe', True), ('none', True), ('refresh', False)):
        own = {'pruning.method': method}
        names = [episode_key(job(values={**own, **more}), 'd') for more in ({}, tau)]
        assert (names[0] == names[1]) == same
    unpruned = {'pruning.method': 'none'}
    assert episode_key(job(values=unpruned), 'd') == episode_key(
        job(values={**unpruned, **plain}), 'd'
    )


def test_an_episode_is_known_by_its_policy_but_not_by_where_that_lies():
    assert episode_key(job(), 'digest') != episode_key(job(), 'other')
    assert episode_key(replace(job(), policy='elsewhere'), 'digest') == episode_key(job(), 'digest')
    other = job()
    pruning = replace(other.settings.pruning, full_pass_share=0.2)
    other = replace(other, settings=replace(other.settings, pruning=pruning))
    assert episode_key(other, 'digest') != episode_key(job(), 'digest')


def test_a_policy_is_known_by_its_weights_and_not_by_its_description(tmp_path):
    folder = tmp_path / 'policy'
    folder.mkdir()
    (folder / 'config.json').write_text('{"model_type": "mini"}', encoding='utf-8')
    (folder / 'model.safetensors').write_bytes(b'weights')
    before = digest_policy(str(folder))
    (folder / 'README.md').write_text('A card.', encoding='utf-8')
    assert digest_policy(str(folder)) == before
    (folder / 'model.safetensors').write_bytes(b'heavier')
    assert digest_policy(str(folder)) != before


def test_the_code_has_one_digest():
    assert digest_code() == digest_code()
