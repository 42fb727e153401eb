"""The tables of success figures in the docs are those of the committed results."""

import json
from pathlib import Path

import pytest

from safe_vla_ros.bench.study_report import make_markdown

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / 'docs' / 'study').glob('*.json'))
PAGES = [*(ROOT / 'docs').glob('*.md'), *(ROOT / 'models').glob('*/README.md')]


@pytest.mark.skipif(not RESULTS, reason='no results are committed')
@pytest.mark.parametrize('path', RESULTS, ids=lambda path: path.stem)
def test_committed_results_stand_in_the_docs(path):
    first_table = make_markdown(json.loads(path.read_text(encoding='utf-8'))).split('\n\n')[0]
    assert any(first_table in page.read_text(encoding='utf-8') for page in PAGES)
