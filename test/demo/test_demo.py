"""The demo as its user runs it: two nodes, DDS, the bundled policy."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from rosbags.highlevel import AnyReader

from safe_vla_ros.replay.bags import Bag
from safe_vla_ros.replay.errors import BagError

PATIENCE_S = 110.0
TASK = 'libero_spatial/0/other'


def start_demo(out, *arguments):
    command = [sys.executable, '-u', '-m', 'safe_vla_ros.demo', '--out', str(out), *arguments]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_episode_with_and_without_pruning_leaves_summary_video_picture_and_bag(tmp_path):
    out, bag = tmp_path / 'out', tmp_path / 'bag'
    demo = start_demo(out, '--tasks', TASK, '--episode-duration', '1.5', '--record', str(bag))
    text, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, text
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['complete'] is True
    safe, none = summary['methods']['safe'], summary['methods']['none']
    assert safe['inferences'] > 0
    assert none['pruning_ratio'] == 0.0
    assert safe['key_step_reasons']
    assert safe['latency_ms']['count'] > 0
    assert safe['control']['ticks'] > 20
    assert safe['rates']['inference_hz'] > 0
    assert [e['seed'] for e in summary['episodes']] == [10000, 10000]
    for episode in summary['episodes']:
        assert 'next to the ramekin' in episode['asked']
        assert (episode['success'], episode['first_lifted']) == (False, 'none')
    assert 'LIBERO' in summary['attribution']
    assert (out / 'libero_spatial_0_other.mp4').stat().st_size > 1000
    assert (out / 'demo.png').stat().st_size > 1000
    with AnyReader([bag]) as reader:
        counts = {connection.topic: connection.msgcount for connection in reader.connections}
    for topic in ('/agentview/image_raw', '/instruction', '/pruned_policy/inference', '/ee_pose'):
        assert counts[topic] > 0, counts


def test_a_full_disk_ends_the_recording_and_the_demo_goes_on(tmp_path, small_disk):
    out, bag = tmp_path / 'out', small_disk / 'bag'
    demo = start_demo(
        out, '--tasks', TASK, '--method', 'safe', '--episode-duration', '1.5', '--no-video',
        '--record', str(bag),
    )  # fmt: skip
    text, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1, text
    said = ' '.join(text.split())
    assert 'error: the recording' in said
    assert 'is not whole: [Errno 28] No space left on device' in said
    assert 'Recorded' not in text
    assert json.loads((out / 'summary.json').read_text())['complete'] is True
    with pytest.raises(BagError, match='its recording was not finished'), Bag(bag):
        pass


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_ends_its_processes(tmp_path, number):
    demo = start_demo(tmp_path, '--no-video')
    line = ''
    while 'Started' not in line:
        line = demo.stdout.readline()
        assert line, 'the demo ended'
    pids = [int(pid) for pid in re.findall(r'process (\d+)', line)]
    assert len(pids) == 2
    # Anywhere on the way: here while the nodes start and the policy loads.
    demo.send_signal(number)
    text, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130, text
    assert 'Interrupted' in text
    deadline_s = time.monotonic() + 5.0
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    assert not (tmp_path / 'summary.json').exists()


def test_a_policy_that_is_not_there_ends_the_demo_with_the_nodes_own_words(tmp_path):
    demo = start_demo(tmp_path, '--policy', str(tmp_path / 'nowhere'))
    text, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 1
    assert 'pruned_policy could not configure' in text
    assert 'nowhere' in text.split('could not configure')[1]
