"""The table of success figures is the one that the model card shows."""

import json
from pathlib import Path

from safe_vla_ros.bench.success import make_markdown

ROOT = Path(__file__).parents[2]


def test_the_model_card_shows_the_committed_results():
    report = json.loads((ROOT / 'docs' / 'success.json').read_text(encoding='utf-8'))
    card = (ROOT / 'models' / 'mini_metaworld' / 'README.md').read_text(encoding='utf-8')
    assert make_markdown(report) in card
