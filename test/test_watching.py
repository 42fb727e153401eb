"""The files for RViz and the diagnostic aggregator name what the node publishes."""

from pathlib import Path

import pytest
import yaml

from safe_vla_ros.sim.expert_policy import EXPERT_SPEC

CONFIG = Path(__file__).parents[1] / 'config'


@pytest.fixture(scope='module')
def rviz():
    return yaml.safe_load((CONFIG / 'pruned_policy.rviz').read_text())


def displays_of(rviz, kind):
    displays = rviz['Visualization Manager']['Displays']
    return [d for d in displays if d['Class'] == f'rviz_default_plugins/{kind}']


def test_rviz_shows_the_overlay_of_every_camera_of_the_simulated_robot(rviz):
    topics = [display['Topic']['Value'] for display in displays_of(rviz, 'Image')]
    cameras = EXPERT_SPEC.cameras
    assert topics == [f'/pruned_policy/saliency/{camera}/image_raw' for camera in cameras]


def test_rviz_asks_for_what_the_node_offers(rviz):
    for display in (*displays_of(rviz, 'Image'), *displays_of(rviz, 'Path')):
        assert display['Topic']['Reliability Policy'] == 'Reliable'
        assert display['Topic']['Durability Policy'] == 'Volatile'
    (path,) = displays_of(rviz, 'Path')
    assert path['Topic']['Value'] == '/pruned_policy/planned_path'


def test_the_aggregator_groups_the_four_tasks_of_any_node():
    text = yaml.safe_load((CONFIG / 'diagnostic_aggregator.yaml').read_text())
    analyzers = text['analyzers']['ros__parameters']['policy']['analyzers']
    contained = [analyzer['contains'] for analyzer in analyzers.values()]
    tasks = ('inputs', 'inference', 'pruning', 'control')
    assert contained == [[f'pruned_policy: {task}'] for task in tasks]
