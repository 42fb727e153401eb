"""What a study runs: stages of variants on scenes, written down before it starts."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from safe_vla_ros.bounded_files import read_yaml
from safe_vla_ros.errors import SafeVlaError
from safe_vla_ros.runtime.parameters import PARAMETERS
from safe_vla_ros.sim.disturbances import DISTURBANCES
from safe_vla_ros.sim.tasks import NUM_INIT_STATES, TASKS, other_task, split_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ASKED, SWAPPED, BLANK = 'asked', 'swapped', 'blank'
SENTENCES = (ASKED, SWAPPED, BLANK)
"""What the policy is told: the task, the other bowl's sentence in the same scene, or nothing.

With the other sentence success is that the other bowl is placed.
"""

UNPRUNED = 'none'
ALL_SCENES = sys.maxsize
OWN_KEYS = ('full_pass_share', 'same_full_passes_as', 'same_macs_as', 'latency')
"""What a variant may say beside parameters; see ``Variant``."""

_LABEL = re.compile(r'^(?:(?P<label>[\w.@-]+)=)?(?P<method>\w+)(?::(?P<rest>.*))?$')
_COMMA = re.compile(r',(?![^\[]*\])')


class PlanError(SafeVlaError):
    """A plan that cannot be run; the message says what is wrong with it."""


@dataclass(frozen=True)
class Variant:
    """A pruning method with its settings.

    Attributes:
        label: Its name in tables.
        method: The pruning method.
        parameters: Values by parameter name that stand over the policy's own.
        full_pass_share: Share of the passes that ``random``, ``grid`` and ``vla_cache`` leave
            unpruned.
        same_full_passes_as: Label of a variant whose share of full passes they take instead.
        same_macs_as: Label of a variant; this one infers as rarely as it must to do no more
            multiply-accumulates per second of the episode.
        latency: Another number is another spread of the modelled latency in the same scenes.
    """

    label: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    full_pass_share: float = 0.0
    same_full_passes_as: str = ''
    same_macs_as: str = ''
    latency: int = 0

    @property
    def waits_for(self) -> str:
        """Label of the variant whose results it needs; empty when it needs none."""
        return self.same_full_passes_as or self.same_macs_as

    @property
    def keep_ratio(self) -> float | None:
        """The share kept, where the variant says one."""
        ratio = self.parameters.get('pruning.keep_ratio')
        return None if self.method == UNPRUNED else ratio


@dataclass(frozen=True)
class Goal:
    """What was to be shown, fixed before the run.

    Attributes:
        variant: Label of what it is about.
        than: Label of what it is compared with; empty for the best rival.
        margin_points: The lower 95 % bound of the difference must lie above minus this; None when
            the variant must be ahead (p < .05 after Holm's correction).
        most_macs_share: Largest share of the unpruned multiply-accumulates; None for any.
        macs_within: A rival's multiply-accumulates differ by no more than this share; None for any.
    """

    variant: str
    than: str = ''
    margin_points: float | None = None
    most_macs_share: float | None = None
    macs_within: float | None = None


@dataclass(frozen=True)
class Scene:
    """Where an episode takes place.

    Attributes:
        task: What is asked there.
        seed: Of the placement.
        init_state: Number of an official initial state; None for a fresh placement.
    """

    task: str
    seed: int
    init_state: int | None

    @property
    def name(self) -> str:
        """Unique within a stage."""
        number = f'seed {self.seed}' if self.init_state is None else f'state {self.init_state}'
        return f'{self.task} {number}'


@dataclass(frozen=True)
class Condition:
    """How the episodes of a table differ from plain ones: the sentence and the disturbance."""

    sentence: str = ASKED
    disturbance: str = ''

    @property
    def name(self) -> str:
        """What tables say."""
        return self.disturbance or self.sentence


@dataclass(frozen=True)
class Stage:
    """Variants on scenes.

    Attributes:
        name: Its name, also of its files.
        tasks: Names of tasks.
        fresh: Number of fresh placements in all, which the tasks take in turn.
        first_seed: Seed of the first of them.
        official: Number of official initial states of every task, from 0.
        variants: What runs.
        conditions: Under which conditions, every one with every variant.
        candidate: Label, without its keep ratio, of the variants that are compared with those of
            other methods and with ablations of their own; may be empty.
        ablations_of: Label, likewise, of the variants that the ablations are compared with; empty
            for the candidate.
        action_error: On how many scenes, from the first, it is measured.
        goals: What is to be shown.
    """

    name: str
    tasks: tuple[str, ...]
    fresh: int
    first_seed: int
    official: int
    variants: tuple[Variant, ...]
    conditions: tuple[Condition, ...] = (Condition(),)
    candidate: str = ''
    ablations_of: str = ''
    action_error: int = 0
    goals: tuple[Goal, ...] = ()

    @property
    def scenes(self) -> list[Scene]:
        """Every scene, in the order in which they run: the tasks in turn."""
        if self.fresh:
            return [
                Scene(self.tasks[index % len(self.tasks)], self.first_seed + index, None)
                for index in range(self.fresh)
            ]
        return [Scene(task, 0, state) for state in range(self.official) for task in self.tasks]

    def variant(self, label: str) -> Variant:
        """Return a variant by label.

        Raises:
            PlanError: There is none.
        """
        for variant in self.variants:
            if variant.label == label:
                return variant
        known = ', '.join(variant.label for variant in self.variants)
        raise PlanError(f'stage {self.name} has no variant {label}; it has {known}')


@dataclass(frozen=True)
class Plan:
    """A study.

    Attributes:
        policy: Directory or bundled name.
        dtype: Number format of the policy.
        stages: In the order in which they run.
    """

    policy: str
    dtype: str
    stages: tuple[Stage, ...]


def parse_variant(text: str) -> Variant:
    """Read ``[label=]method[:key=value,...]``.

    A key is a parameter, with or without ``pruning.``, or one of ``OWN_KEYS``; a list has brackets.

    Raises:
        PlanError: It cannot be read, or names something unknown.
    """
    match = _LABEL.match(text.replace(' ', ''))
    if match is None:
        msg = f'variant {text!r} must look like [label=]method[:key=value,...]'
        raise PlanError(msg)
    parameters: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for part in _COMMA.split(match['rest'] or ''):
        key, equals, value = part.partition('=')
        if not part:
            continue
        if not equals:
            msg = f'variant {text!r}: {part!r} must look like key=value'
            raise PlanError(msg)
        if key in OWN_KEYS:
            own[key] = value if key.startswith('same') else yaml.safe_load(value)
        else:
            parameters[_parameter_name(key, text)] = _number(yaml.safe_load(value))
    label = match['label'] or text.replace(' ', '').partition(':')[0]
    return Variant(label, match['method'], parameters, **own)


def expand(texts: Iterable[str], keep_ratios: Sequence[float]) -> tuple[Variant, ...]:
    """Read variants, those that do not say what they keep once for every keep ratio.

    Their labels get it behind an ``@``. What they refer to has the same keep ratio.

    Raises:
        PlanError: As ``parse_variant``; a label comes twice; a reference leads nowhere.
    """
    written = [parse_variant(text) for text in texts]
    expands = {
        variant.label
        for variant in written
        if variant.method != UNPRUNED and 'pruning.keep_ratio' not in variant.parameters
    }
    variants: list[Variant] = []
    for variant in written:
        ratios: Sequence[float | None] = [None]
        if variant.label in expands or variant.waits_for in expands:
            ratios = keep_ratios
        variants += [_with_ratio(variant, ratio, expands) for ratio in ratios]
    labels = [variant.label for variant in variants]
    for variant in variants:
        if labels.count(variant.label) > 1:
            raise PlanError(f'two variants are called {variant.label}; write label=method:...')
        waits_for = next((v for v in variants if v.label == variant.waits_for), None)
        if variant.waits_for and waits_for is None:
            raise PlanError(f'{variant.label} refers to {variant.waits_for}, which does not run')
        if waits_for is not None and waits_for.waits_for:
            raise PlanError(f'{variant.label} refers to {waits_for.label}, which refers further')
    return tuple(variants)


def read_plan(path: Path) -> Plan:
    """Read a plan from YAML; ``docs/study/plan.yaml`` shows every key.

    Raises:
        PlanError: It cannot be read, or holds something unknown or impossible.
    """
    content = _mapping(read_yaml(path, PlanError), str(path))
    _only(content, ('policy', 'dtype', 'tasks', 'stages'), str(path))
    tasks = tuple(content.get('tasks', TASKS))
    stages = _mapping(content.get('stages'), f'{path}: stages')
    return Plan(
        policy=str(content.get('policy', 'mini_libero')),
        dtype=str(content.get('dtype', 'float32')),
        stages=tuple(
            read_stage(name, _mapping(stage, f'{path}: stage {name}'), tasks)
            for name, stage in stages.items()
        ),
    )


def read_stage(name: str, content: Mapping[str, Any], tasks: tuple[str, ...]) -> Stage:
    """Read one stage.

    Args:
        name: Its name.
        content: Its keys, as in YAML.
        tasks: Names of tasks where it does not have its own.

    Raises:
        PlanError: Something in it is unknown or impossible.
    """
    where = f'stage {name}'
    allowed = (
        'tasks',
        'scenes',
        'keep_ratios',
        'variants',
        'sentences',
        'disturbances',
        'candidate',
        'ablations_of',
        'action_error',
        'goals',
    )
    _only(content, allowed, where)
    tasks = tuple(content.get('tasks', tasks))
    for task in tasks:
        _check_task(task, where)
    scenes = _mapping(content.get('scenes'), f'{where}: scenes')
    _only(scenes, ('fresh', 'first_seed', 'official'), f'{where}: scenes')
    fresh, official = int(scenes.get('fresh', 0)), int(scenes.get('official', 0))
    if (fresh > 0) == (official > 0) or official > NUM_INIT_STATES:
        msg = (
            f'{where}: scenes must have either fresh, a number with first_seed, or official, 1 to '
            f'{NUM_INIT_STATES}; got {dict(scenes)}'
        )
        raise PlanError(msg)
    variants = expand(content.get('variants', ()), content.get('keep_ratios', (0.25,)))
    stage = Stage(
        name=name,
        tasks=tasks,
        fresh=fresh,
        first_seed=int(scenes.get('first_seed', 0)),
        official=official,
        variants=variants,
        conditions=tuple(_conditions(content, tasks, where)),
        candidate=str(content.get('candidate', '')),
        ablations_of=str(content.get('ablations_of', '')),
        action_error=_scenes_with_error(content.get('action_error', False), where),
        goals=tuple(_goal(goal, where) for goal in content.get('goals', ())),
    )
    for label in {label for goal in stage.goals for label in (goal.variant, goal.than) if label}:
        stage.variant(label)
    if not variants:
        raise PlanError(f'{where} has no variants')
    return stage


def _conditions(
    content: Mapping[str, Any], tasks: Sequence[str], where: str
) -> Iterable[Condition]:
    sentences = content.get('sentences', [ASKED])
    disturbances = content.get('disturbances', [''])
    if disturbances == 'all':
        disturbances = ['', *DISTURBANCES]
    for sentence in sentences:
        if sentence not in SENTENCES:
            raise PlanError(f'{where}: sentence {sentence!r}; allowed are {", ".join(SENTENCES)}')
        if sentence == SWAPPED:
            for task in tasks:
                _check_task(task, where, other=True)
    for disturbance in disturbances:
        if disturbance and disturbance not in DISTURBANCES:
            allowed = ', '.join(DISTURBANCES)
            raise PlanError(f'{where}: disturbance {disturbance!r}; allowed are {allowed}')
    return [
        Condition(sentence, disturbance) for disturbance in disturbances for sentence in sentences
    ]


def _scenes_with_error(value: object, where: str) -> int:
    if isinstance(value, bool):
        return ALL_SCENES if value else 0
    if isinstance(value, int) and value >= 0:
        return value
    raise PlanError(
        f'{where}: action_error must be true, false or a number of scenes, got {value!r}'
    )


def _goal(content: object, where: str) -> Goal:
    fields = _mapping(content, f'{where}: goal')
    _only(fields, tuple(Goal.__annotations__), f'{where}: goal')
    if 'variant' not in fields:
        raise PlanError(f'{where}: a goal must name its variant')
    return Goal(**fields)


def _with_ratio(variant: Variant, ratio: float | None, expands: set[str]) -> Variant:
    if ratio is None:
        return variant

    def at(label: str) -> str:
        return f'{label}@{ratio:g}' if label in expands else label

    parameters = dict(variant.parameters)
    if variant.label in expands:
        parameters['pruning.keep_ratio'] = float(ratio)
    return Variant(
        label=f'{variant.label}@{ratio:g}',
        method=variant.method,
        parameters=parameters,
        full_pass_share=variant.full_pass_share,
        same_full_passes_as=at(variant.same_full_passes_as),
        same_macs_as=at(variant.same_macs_as),
        latency=variant.latency,
    )


def _parameter_name(key: str, text: str) -> str:
    for name in (f'pruning.{key}', key):
        if name in PARAMETERS:
            return name
    msg = f'variant {text!r}: {key} is neither a parameter nor one of {", ".join(OWN_KEYS)}'
    raise PlanError(msg)


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and re.fullmatch(r'\.\d+', value) else value


def _check_task(task: str, where: str, *, other: bool = False) -> None:
    try:
        split_name(task)
        if other:
            other_task(task)
    except KeyError as error:
        raise PlanError(f'{where}: {error.args[0]}') from None


def _mapping(content: object, where: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise PlanError(f'{where} must map names to values, got {content!r}')
    return content


def _only(content: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    for key in content:
        if key not in allowed:
            raise PlanError(f'{where} has {key!r}; allowed are {", ".join(allowed)}')
