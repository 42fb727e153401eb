"""The replay's benchmark measures real replays of the recordings it writes."""

import json

import pytest

from safe_vla_ros.bench.recordings import KINDS, write_recording
from safe_vla_ros.bench.replay import CAMERAS, main, measure


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_recording_is_replayed_whole(tmp_path, kind):
    write_recording(tmp_path / kind, kind, 1.0, CAMERAS, size=(48, 64))
    figures = measure(tmp_path, kind, 1.0, 'none')
    assert figures['messages'] == 100 + 2 * 20
    assert 3 <= figures['inferences'] <= 20
    assert min(figures.values()) > 0.0


def test_the_command_line_writes_what_it_prints(tmp_path, capsys):
    main(['--seconds', '0.4', '--minutes', '0.02', '--json', str(tmp_path / 'figures.json')])
    figures = json.loads((tmp_path / 'figures.json').read_text())
    printed = capsys.readouterr().out
    assert set(figures['replay']) == set(KINDS)
    assert set(figures['memory_mib']) == {'0.002 min', '0.02 min'}
    for kind, row in figures['replay'].items():
        assert f'| {kind} | {row["messages"]} | {row["message_ms"]:.3f} |' in printed
    for length, mib in figures['memory_mib'].items():
        assert mib > 10.0
        assert f'Peak memory, {length}: {mib:.0f} MiB' in printed
