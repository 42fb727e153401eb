"""The table of success figures is the one that the model card shows."""

import json
from pathlib import Path

import pytest

from safe_vla_ros.bench.success import main, make_markdown

ROOT = Path(__file__).parents[2]


def test_the_model_card_shows_the_committed_results():
    report = json.loads((ROOT / 'docs' / 'success.json').read_text(encoding='utf-8'))
    card = (ROOT / 'models' / 'mini_metaworld' / 'README.md').read_text(encoding='utf-8')
    assert make_markdown(report) in card


def test_a_setting_that_is_not_allowed_ends_the_program_with_a_sentence(capsys):
    with pytest.raises(SystemExit):
        main(['--keep-ratio', '2.0', '--methods', 'none'])
    assert 'pruning.keep_ratio = 2.0' in capsys.readouterr().err
