"""Policy directories are found and read without their weights."""

import pytest
from mini_policies import write_untrained_policy

from safe_vla_ros.errors import CheckpointError
from safe_vla_ros.policies import find_policy, read_spec


@pytest.fixture
def directory(tmp_path):
    return write_untrained_policy(tmp_path / 'my_policy')


def test_a_policy_says_what_it_needs(directory):
    (directory / 'model.safetensors').unlink()
    spec = read_spec(str(directory))
    assert spec.kind == 'mini'
    assert spec.cameras == ('agentview', 'wrist')
    assert spec.proprio_layout == ('ee_position', 'ee_axis_angle_down', 'gripper_joints')
    assert spec.gripper_joint_names == ('panda_finger_joint1', 'panda_finger_joint2')
    assert spec.limits == {'max_linear_speed': 0.3, 'max_linear_accel': 2.0}
    assert spec.pruning['layer'] == 2


def test_a_policy_file_says_how_images_are_prepared(directory):
    (directory / 'policy.yaml').write_text('image: {mirror: true, center_crop: true}')
    spec = read_spec(str(directory))
    assert (spec.rotate_180, spec.mirror, spec.center_crop) == (False, True, True)


def test_a_reference_that_names_nothing_says_where_it_looked(tmp_path):
    with pytest.raises(CheckpointError, match='looked at'):
        find_policy(str(tmp_path / 'absent'))
    with pytest.raises(CheckpointError, match='nonsense'):
        find_policy('nonsense')


@pytest.mark.parametrize(
    'reference', ['hf:org/name', 'hf:org/name@main', 'hf:org/name@abc123', 'hf:name@' + 'a' * 40]
)
def test_the_hub_is_asked_only_for_a_full_commit(reference):
    with pytest.raises(CheckpointError, match='40-hex'):
        find_policy(reference)


def test_a_directory_without_a_configuration_is_no_policy(tmp_path):
    with pytest.raises(CheckpointError, match=r'config\.json is missing'):
        read_spec(str(tmp_path))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'JSON'),
        ('[1]', 'JSON object'),
        ('{"model_type": "gpt"}', "model_type is 'gpt'"),
        ('{"model_type": "mini_vla"}', 'missing'),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path, text, message):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_spec(str(tmp_path))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('colour: blue', 'colour'),
        ('action: {scale: 2}', r'action\.scale'),
        ('action: 3', 'mapping'),
        ('- 1', 'mapping'),
        ('a: [', 'YAML'),
    ],
)
def test_a_policy_file_with_a_mistake_names_it(directory, text, message):
    (directory / 'policy.yaml').write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_spec(str(directory))
