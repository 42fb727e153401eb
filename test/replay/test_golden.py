"""The committed recording gives the committed numbers.

After a change that is meant to change them: ``python test/replay/test_golden.py`` writes them anew.
"""

import json
import sys
from pathlib import Path

import pytest

from safe_vla_ros.replay.cli import main
from safe_vla_ros.replay.output import read_summary

ROOT = Path(__file__).parents[2]
BAG = ROOT / 'test' / 'bags' / 'bowl_to_plate'
GOLDEN = Path(__file__).with_name('golden.json')
STEP_KEYS = ('method', 'episode', 'step', 'key_step', 'reason')
TOTALS = (
    'inferences',
    'key_steps',
    'kept_share',
    'macs_share',
    'decoder_gmacs',
    'acceleration_m_s2_rms',
    'reversals_per_s',
    'starved_share',
)


def replay(out):
    """Replay the recording and return the numbers that are compared."""
    arguments = ['--params', str(ROOT / 'config' / 'mini_libero.yaml'), '--latency', '60']
    options = ['--set', 'pruning.method=safe', '--compare', 'none,fastv,refresh']
    options += ['--overlays', 'none', '--out', str(out)]
    assert main([str(BAG), *arguments, *options]) == 0
    summary = read_summary(out)
    rows = [json.loads(line) for line in (out / 'steps.jsonl').open()]
    return {
        'steps': [
            {
                **{key: row[key] for key in STEP_KEYS},
                'time_s': row['time_s'],
                'similarity': row['similarity'],
                'tokens_kept': sum(row['tokens_computed'].values()),
                'difference_m': row.get('difference', {}).get('position_m'),
                'first_action': row['actions'][0],
            }
            for row in rows
        ],
        'totals': {
            method: {
                **{name: numbers[name] for name in TOTALS},
                'difference_m': numbers['difference']['position_m']['mean'],
                'recorded_direction': numbers['recorded']['direction_cosine'],
                'recorded_m_s': numbers['recorded']['linear_m_s_rms'],
                'seam_jump_m_s': numbers['seam_jump_m_s']['mean'],
            }
            for method, numbers in summary['methods'].items()
        },
    }


@pytest.fixture(scope='module')
def got(tmp_path_factory):
    return replay(tmp_path_factory.mktemp('golden') / 'out')


@pytest.fixture(scope='module')
def golden():
    return json.loads(GOLDEN.read_text())


def test_steps_of_the_committed_recording(got, golden):
    assert len(got['steps']) == len(golden['steps'])
    for mine, expected in zip(got['steps'], golden['steps'], strict=True):
        for key in (*STEP_KEYS, 'tokens_kept'):
            assert mine[key] == expected[key], (key, expected)
        assert mine['time_s'] == pytest.approx(expected['time_s'], abs=1e-4)
        for key, tolerance in (('similarity', 2e-3), ('difference_m', 5e-4)):
            value = expected[key]
            near = value if value is None else pytest.approx(value, abs=tolerance)
            assert mine[key] == near, (key, expected)
        assert mine['first_action'] == pytest.approx(expected['first_action'], abs=2e-3)


def test_totals_of_the_committed_recording(got, golden):
    assert got['totals'].keys() == golden['totals'].keys()
    for method, expected in golden['totals'].items():
        for name, value in expected.items():
            mine = got['totals'][method][name]
            near = value if value is None else pytest.approx(value, rel=0.02, abs=1e-4)
            assert mine == near, (method, name)


def test_the_recording_is_small_enough_to_be_committed():
    assert sum(path.stat().st_size for path in BAG.iterdir()) < 5 * 2**20


if __name__ == '__main__':
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        numbers = replay(Path(folder) / 'out')
    steps = ',\n'.join(json.dumps(step) for step in numbers['steps'])
    totals = json.dumps(numbers['totals'], indent=1)
    GOLDEN.write_text(f'{{"steps": [\n{steps}\n],\n"totals": {totals}}}\n')
    sys.stdout.write(f'{GOLDEN}\n')
