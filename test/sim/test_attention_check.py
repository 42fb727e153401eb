"""Attention is compared with what the images show."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from mini_policies import write_untrained_policy

from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.policies.mini import MiniPolicy
from safe_vla_ros.sim import attention_check
from safe_vla_ros.sim.attention_check import (
    ASKED,
    GRIPPER,
    OTHER,
    OTHER_SENTENCE,
    OWN_SENTENCE,
    PLATE_NAME,
    Look,
    describe,
    draw,
    gains,
    patch_cover,
)
from safe_vla_ros.sim.expert import look
from safe_vla_ros.sim.rollout import EpisodeResult, Frame
from safe_vla_ros.types import MessageHeader

PROPRIO = np.array([0.0, 0.2, 1.1, 3.14, 0.0, -0.1, 0.04, -0.04])


def make_frame(arm):
    return Frame(MessageHeader.at(1.0), arm.snapshot(), look(arm))


def make_look(saliency, *, asked=None):
    """A look through one camera of 4 by 4 tokens, each of 64 by 64 pixels; 16 tokens of 1/16."""
    asked = np.zeros((4, 4), np.float32) if asked is None else asked
    nothing = np.zeros((4, 4), np.float32)
    return Look(
        task='libero_spatial/0',
        sentence=OWN_SENTENCE,
        told='pick up the bowl',
        saliency={'agentview': np.asarray(saliency, np.float32)},
        cover={'agentview': {ASKED: asked, OTHER: nothing, PLATE_NAME: nothing, GRIPPER: nothing}},
        images={'agentview': np.zeros((256, 256, 3), np.uint8)},
        asked={'agentview': np.kron(asked, np.ones((64, 64))) > 0},
    )


def at(row, column, value=1.0, rest=0.0):
    grid = np.full((4, 4), rest, np.float32)
    grid[row, column] = value
    return grid


def test_a_patch_is_covered_by_the_share_of_its_pixels():
    mask = np.zeros((256, 256), bool)
    mask[:32, :64] = True
    np.testing.assert_allclose(patch_cover(mask, (4, 4)), at(0, 0, 0.5))
    assert patch_cover(mask, (14, 14)).mean() == pytest.approx(mask.mean(), abs=1e-6)


def test_looking_nowhere_in_particular_gains_nothing():
    even = np.full((3, 4, 4), 0.01)
    figures = gains([make_look(even, asked=at(1, 2, 0.3))], 'agentview', ASKED, 1)
    np.testing.assert_allclose(figures['by_layer'], 1.0, rtol=1e-5)
    assert figures['deep'] == pytest.approx(1.0)


def test_the_gain_is_the_share_of_attention_over_the_share_of_the_image():
    # Layer 1 looks at the bowl alone, layer 2 half at it and half at another token.
    saliency = np.stack([np.ones((4, 4)), at(1, 2, 0.4), at(1, 2, 0.1) + at(0, 0, 0.1)])
    figures = gains([make_look(saliency, asked=at(1, 2))], 'agentview', ASKED, 1)
    assert figures['by_layer'] == pytest.approx([1.0, 16.0, 8.0])
    assert figures['deep'] == pytest.approx(16 * 0.5 / 0.6)
    assert figures['area_share'] == pytest.approx(1 / 16)


def test_frames_that_do_not_show_a_thing_do_not_count():
    seen, unseen = make_look(np.ones((2, 4, 4)), asked=at(1, 2)), make_look(np.ones((2, 4, 4)))
    assert gains([seen, unseen], 'agentview', ASKED, 1)['frames'] == 1
    assert gains([unseen], 'agentview', ASKED, 1)['deep'] is None


def test_effective_tokens_count_what_shares_the_attention():
    saliency = np.stack([np.ones((4, 4)), at(0, 0), at(0, 0) + at(3, 3)])
    figures = describe([make_look(saliency)], 1)
    assert figures['effective_tokens_by_layer'] == pytest.approx([16.0, 1.0, 2.0], rel=1e-4)
    assert figures['attention_share_by_layer'] == {'agentview': [16.0, 1.0, 2.0]}


def test_a_picture_is_brightest_where_the_policy_looks_and_outlines_the_asked_bowl():
    picture = draw(make_look(np.stack([at(3, 3)] * 2), asked=at(1, 2)), 1)
    assert picture.shape == (512 + 28, 512, 3)
    brightness = picture[:512].reshape(4, 128, 4, 128, 3).mean((1, 3, 4))
    assert np.unravel_index(brightness.argmax(), (4, 4)) == (3, 3)
    red = (picture[:512] == (255, 80, 80)).all(2)
    rows, columns = np.nonzero(red)
    corners = [rows.min(), rows.max(), columns.min(), columns.max()]
    np.testing.assert_allclose(corners, [128, 256, 256, 384], atol=3)


@pytest.fixture(scope='module')
def directory(tmp_path_factory):
    torch.set_num_threads(1)
    return str(write_untrained_policy(tmp_path_factory.mktemp('policy')))


def test_a_policy_that_does_not_tell_is_refused(directory, monkeypatch, capsys):
    monkeypatch.setattr(attention_check, 'MiniPolicy', str)
    with pytest.raises(SystemExit):
        attention_check.main(['--policy', directory])
    assert 'is of the kind mini; allowed: mini' in capsys.readouterr().err


def test_frames_before_the_grasp_are_looked_at_with_either_sentence(
    shared_arm, directory, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(attention_check, 'SimulatedPanda', lambda task, **_: shared_arm)
    monkeypatch.setattr(type(shared_arm), 'close', lambda arm: None)

    def run_episode(arm, policy, *, on_frame, **_):
        assert isinstance(policy, MiniPolicy)
        for _ in range(4):
            on_frame(arm, make_frame(arm), PROPRIO)
        arm.command_gripper(0.0)
        for step in range(60):
            arm.step(float(step))
        for _ in range(4):
            on_frame(arm, make_frame(arm), PROPRIO)
        return EpisodeResult(success=True)

    monkeypatch.setattr(attention_check, 'run_episode', run_episode)
    arguments = ['--episodes', '1', '--stride', '2', '--tasks', 'libero_spatial/0']
    out, pictures = tmp_path / 'report.json', tmp_path / 'pictures'
    attention_check.main(
        ['--policy', directory, *arguments, '--out', str(out), '--pictures', str(pictures)]
    )
    assert [path.name for path in pictures.iterdir()] == ['libero_spatial-0.png']
    report = json.loads(out.read_text())
    assert (report['solved'], report['episodes']) == (1, 1)
    own, other = (report['sentences'][name] for name in (OWN_SENTENCE, OTHER_SENTENCE))
    assert own['frames'] == other['frames'] == 2  # none after the hand has closed
    areas = [
        (figures['cameras']['agentview'][ASKED], figures['cameras']['agentview'][OTHER])
        for figures in (own, other)
    ]
    assert areas[0][0]['area_share'] == areas[1][1]['area_share'] > 0.005
    assert areas[0][1]['area_share'] == areas[1][0]['area_share'] > 0.005
    assert areas[0][0]['deep'] == pytest.approx(1.0, abs=0.2)  # untrained
    assert '| agentview, asked bowl |' in capsys.readouterr().out


def test_no_frame_before_a_grasp_is_an_error(directory, monkeypatch):
    monkeypatch.setattr(attention_check, 'watch', lambda options, policy: ([], 0))
    with pytest.raises(SafeVlaError, match='smaller stride'):
        attention_check.check(Namespace(policy=directory))
