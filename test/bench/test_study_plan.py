"""Plans of studies: what they may say, and what they come to."""

from pathlib import Path

import pytest

from safe_vla_ros.bench.study_plan import (
    Condition,
    PlanError,
    expand,
    parse_variant,
    read_plan,
    read_stage,
)
from safe_vla_ros.pruning import PRUNER_NAMES

ROOT = Path(__file__).parents[2]
TASKS = ('libero_spatial/0', 'libero_spatial/0/other')


def stage(**content):
    return read_stage('one', {'scenes': {'fresh': 5}, 'variants': ['none'], **content}, TASKS)


def test_a_variant_is_a_method_with_values_and_own_keys():
    variant = parse_variant(
        'mine=safe: keep_ratio=.125, forecast_layers=[5,6], execute_steps=2, latency=3'
    )
    assert variant.label == 'mine'
    assert variant.method == 'safe'
    assert variant.parameters == {
        'pruning.keep_ratio': 0.125,
        'pruning.forecast_layers': [5, 6],
        'execute_steps': 2,
    }
    assert variant.latency == 3
    assert parse_variant('safe').label == 'safe'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('safe:keep=.5', 'keep is neither a parameter nor one of full_pass_share'),
        ('safe:keep_ratio', "'keep_ratio' must look like key=value"),
        ('=safe', 'must look like'),
    ],
)
def test_a_variant_that_cannot_be_read_is_refused(text, message):
    with pytest.raises(PlanError, match=message):
        parse_variant(text)


def test_variants_run_at_every_keep_ratio_and_refer_to_the_same_one():
    variants = expand(
        [
            'none',
            'safe',
            'random:same_full_passes_as=safe',
            'slow=none:same_macs_as=safe',
            'fixed=safe:keep_ratio=0.5',
        ],
        [0.25, 0.0625],
    )
    by_label = {variant.label: variant for variant in variants}
    assert list(by_label) == [
        'none',
        'safe@0.25',
        'safe@0.0625',
        'random@0.25',
        'random@0.0625',
        'slow@0.25',
        'slow@0.0625',
        'fixed',
    ]
    assert by_label['random@0.0625'].same_full_passes_as == 'safe@0.0625'
    assert by_label['random@0.0625'].keep_ratio == 0.0625
    assert by_label['slow@0.25'].same_macs_as == 'safe@0.25'
    assert by_label['slow@0.25'].keep_ratio is None


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        (['safe', 'safe'], 'two variants are called safe@0.25'),
        (['random:same_full_passes_as=safe'], 'refers to safe, which does not run'),
        (
            ['safe', 'random:same_full_passes_as=safe', 'grid:same_full_passes_as=random'],
            'refers further',
        ),
    ],
)
def test_variants_that_do_not_go_together_are_refused(texts, message):
    with pytest.raises(PlanError, match=message):
        expand(texts, [0.25])


def test_fresh_scenes_never_share_a_placement_and_tasks_take_turns():
    scenes = stage(scenes={'fresh': 5, 'first_seed': 100}).scenes
    assert [scene.seed for scene in scenes] == [100, 101, 102, 103, 104]
    assert [scene.task for scene in scenes] == [*TASKS, *TASKS, TASKS[0]]
    assert len({scene.name for scene in scenes}) == 5


def test_official_scenes_are_the_same_for_every_task():
    scenes = stage(scenes={'official': 3}).scenes
    assert [(scene.task, scene.seed, scene.init_state) for scene in scenes[:3]] == [
        (TASKS[0], 0, 0),
        (TASKS[1], 0, 0),
        (TASKS[0], 0, 1),
    ]
    assert len(scenes) == 6


def test_conditions_are_sentences_and_disturbances():
    assert stage().conditions == (Condition(),)
    told = stage(sentences=['asked', 'blank'], disturbances=['', 'stopped']).conditions
    assert [condition.name for condition in told] == ['asked', 'blank', 'stopped', 'stopped']
    assert len(stage(disturbances='all').conditions) == 8


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'scenes': {}}, 'scenes must have either fresh'),
        ({'scenes': {'fresh': 2, 'official': 2}}, 'scenes must have either fresh'),
        ({'scenes': {'official': 51}}, '1 to 50'),
        ({'variants': []}, 'has no variants'),
        ({'sentence': ['asked']}, "has 'sentence'; allowed are"),
        ({'sentences': ['loud']}, "sentence 'loud'; allowed are asked"),
        ({'disturbances': ['rain']}, "disturbance 'rain'; allowed are bowl_moved"),
        ({'tasks': ['libero_spatial/10']}, 'unknown task'),
        ({'tasks': ['libero_goal/1'], 'sentences': ['swapped']}, 'other bowl'),
        ({'action_error': 'some'}, 'true, false or a number of scenes'),
        ({'action_error': -1}, 'true, false or a number of scenes'),
        ({'goals': [{'variant': 'refresh'}]}, 'no variant refresh'),
        ({'goals': [{'than': 'none'}]}, 'a goal must name its variant'),
    ],
)
def test_a_stage_that_cannot_be_run_is_refused(content, message):
    with pytest.raises(PlanError, match=message):
        stage(**content)


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    path = tmp_path / 'plan.yaml'
    path.write_text('stages: [none]\n', encoding='utf-8')
    with pytest.raises(PlanError, match='stages must map names to values'):
        read_plan(path)


def test_the_committed_plan_holds_what_was_asked():
    plan = read_plan(ROOT / 'docs' / 'study' / 'plan.yaml')
    stages = {one.name: one for one in plan.stages}
    screened = {variant.method for variant in stages['screening'].variants}
    assert set(PRUNER_NAMES) <= screened
    assert len(stages['screening'].scenes) == 60
    finalists = stages['finalists']
    assert len(finalists.scenes) == 300
    assert {v.keep_ratio for v in finalists.variants} == {None, 0.25, 0.0625}
    assert finalists.goals[0].margin_points == 3
    assert len(stages['language'].scenes) == 50 * len(stages['language'].tasks)
    assert len(stages['official'].scenes) == 20 * len(stages['official'].tasks)


def test_no_scene_of_the_committed_plan_is_used_twice():
    plan = read_plan(ROOT / 'docs' / 'study' / 'plan.yaml')
    seeds = [scene.seed for one in plan.stages for scene in one.scenes if one.fresh]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 100_000
