"""A hub reference downloads data files of one commit, and nothing else."""

from fnmatch import fnmatch

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies.pi_prompt import find_tokenizer
from safe_vla_ros.policies.spec import find_policy

COMMIT = 'a' * 40
DATA = [
    'config.json',
    'model-00001-of-00003.safetensors',
    'model.safetensors.index.json',
    'action_head--150000_checkpoint.pt',
    'proprio_projector--150000_checkpoint.pt',
    'dataset_statistics.json',
    'preprocessor_config.json',
    'tokenizer.json',
    'policy.yaml',
]
OTHER = [
    'modeling_prismatic.py',
    'pytorch_model.bin',
    'optimizer.pt',
    'lora_adapter/adapter_model.safetensors',
    'README.md',
]


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    calls = []

    def snapshot_download(repository, **options):
        calls.append((repository, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot_download)
    return calls


def test_a_commit_is_downloaded_and_its_directory_returned(downloads, tmp_path):
    assert find_policy(f'hf:org/name@{COMMIT}') == tmp_path
    (repository, options), *rest = downloads
    assert not rest
    assert (repository, options['revision']) == ('org/name', COMMIT)


def test_only_data_files_of_the_top_directory_are_asked_for(downloads):
    find_policy(f'hf:org/name@{COMMIT}')
    options = downloads[0][1]
    patterns = {key: options[key] for key in ('allow_patterns', 'ignore_patterns')}
    assert list(filter_repo_objects(DATA + OTHER, **patterns)) == DATA
    assert not any(fnmatch('modeling.py', pattern) for pattern in options['allow_patterns'])


@pytest.mark.parametrize('revision', ['main', 'v1.0', 'a' * 39, 'A' * 40, ''])
def test_a_reference_that_could_change_is_never_downloaded(downloads, revision):
    with pytest.raises(CheckpointError, match='must be hf:org/name@<40-hex commit>'):
        find_policy(f'hf:org/name@{revision}')
    assert not downloads


def test_a_failed_download_is_a_sentence(monkeypatch):
    def fail(*_, **__):
        raise OSError('no route to host')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', fail)
    with pytest.raises(CheckpointError, match='cannot be downloaded: no route to host'):
        find_policy(f'hf:org/name@{COMMIT}')


def test_a_tokenizer_is_downloaded_without_the_model_beside_it(downloads, tmp_path):
    (tmp_path / 'tokenizer.json').write_text('{}')

    path = find_tokenizer(tmp_path / 'policy', f'hf:google/paligemma@{COMMIT}')

    assert path == tmp_path / 'tokenizer.json'
    assert downloads[0][1]['allow_patterns'] == ['tokenizer.json']


def test_without_a_hub_reference_no_tokenizer_is_downloaded(downloads, tmp_path):
    with pytest.raises(CheckpointError, match=r'tokenizer\.json is missing'):
        find_tokenizer(tmp_path, '.')

    assert not downloads
