"""What a stage of a study says: figures, comparisons and tables, all from its episodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from safe_vla_ros.bench.study_plan import UNPRUNED, Condition
from safe_vla_ros.sim.lifting import ASKED, OTHER
from safe_vla_ros.sim.paired_statistics import (
    bootstrap_mean,
    holm,
    mcnemar_exact,
    paired_difference,
    wilson_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from safe_vla_ros.bench.study_plan import Goal, Stage, Variant
    from safe_vla_ros.bench.study_run import StageResult
    from safe_vla_ros.sim.evaluate import EpisodeSummary

Episodes = dict[str, 'EpisodeSummary']
"""Episodes of one variant by the scene's name."""

STUDY_ONLY = 'oracle'
SIGNIFICANT = 0.05


def figures(episodes: Iterable[EpisodeSummary]) -> dict[str, Any]:
    """Return what some episodes came to; sums over passes, so long episodes weigh more."""
    held = list(episodes)
    count = len(held)
    solved = sum(episode.success for episode in held)
    reasons: Counter[str] = Counter()
    for episode in held:
        reasons.update(episode.key_steps)
    seconds = sum(episode.duration_s for episode in held)
    return {
        'episodes': count,
        'successes': solved,
        'success_rate': solved / max(1, count),
        'success_interval_95': list(wilson_interval(solved, count)),
        'asked_lifted_first': sum(episode.first_lifted == ASKED for episode in held),
        'wrong_lifted_first': sum(episode.first_lifted == OTHER for episode in held),
        'mean_duration_s': seconds / max(1, count),
        'inferences': sum(episode.inferences for episode in held),
        'key_steps': dict(reasons),
        'tokens_computed_share': _share(held, 'tokens_kept', 'tokens_total'),
        'full_pass_share': _share(held, 'full_passes', 'inferences'),
        'decoder_macs_share': _share(held, 'decoder_macs', 'decoder_macs_full'),
        'decoder_macs_per_s': sum(e.decoder_macs for e in held) / max(seconds, 1e-9),
        'action_error_mm': _weighed(held, 'action_error_mm'),
        'action_bias_mm': _weighed(held, 'action_bias_mm'),
        'starved_s': sum(episode.starved_s for episode in held),
        'cpu_s_per_episode': sum(episode.cpu_s for episode in held) / max(1, count),
    }


def compare(first: Episodes, second: Episodes) -> dict[str, Any]:
    """Compare two variants on the scenes that both have run.

    Returns:
        ``scenes``; ``lost``, solved by the first only; ``won``, by the second only;
        ``difference`` second minus first with ``difference_interval_95`` (Newcombe); ``p``
        (McNemar, exact). With action errors also ``error_difference_mm``, second minus first per
        scene, with ``error_difference_interval_95`` (bootstrap over scenes).
    """
    pairs = [(first[name], second[name]) for name in first if name in second]
    cells = Counter((one.success, other.success) for one, other in pairs)
    both, lost = cells[True, True], cells[True, False]
    won, neither = cells[False, True], cells[False, False]
    difference, low, high = paired_difference(both, lost, won, neither)
    result: dict[str, Any] = {
        'scenes': len(pairs),
        'lost': lost,
        'won': won,
        'difference': difference,
        'difference_interval_95': [low, high],
        'p': mcnemar_exact(lost, won),
    }
    errors = [
        other.action_error_mm - one.action_error_mm
        for one, other in pairs
        if one.action_error_mm is not None and other.action_error_mm is not None
    ]
    if errors:
        mean, low, high = bootstrap_mean(errors)
        result['error_difference_mm'] = mean
        result['error_difference_interval_95'] = [low, high]
    return result


def make_report(result: StageResult, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Put together everything that a stage says.

    Args:
        result: Its episodes.
        facts: About policy and machine; stand at the top.
    """
    stage = result.stage
    conditions = [_report_condition(result, condition) for condition in stage.conditions]
    return {
        **facts,
        'stage': stage.name,
        'tasks': list(stage.tasks),
        'scenes': {
            'fresh': stage.fresh,
            'first_seed': stage.first_seed,
            'official_per_task': stage.official,
        },
        'complete': len(result.episodes) == len({cell.key for cell in result.cells})
        and {cell.variant for cell in result.cells} == {v.label for v in stage.variants},
        'codes': dict(result.codes),
        'variants': {variant.label: asdict(variant) for variant in stage.variants},
        'statistics': (
            'success: Wilson, 95 %; difference on the same scenes: Newcombe 1998, method 10, 95 %; '
            'p: McNemar, exact, two-sided; p_holm: corrected by Holm over the rows of its kind; '
            'error: bootstrap over scenes, 95 %'
        ),
        'conditions': conditions,
        'goals': [_judge(goal, stage, conditions[0]) for goal in stage.goals],
    }


def _report_condition(result: StageResult, condition: Condition) -> dict[str, Any]:
    stage = result.stage
    by_variant = {v.label: result.of(v.label, condition) for v in stage.variants}
    report: dict[str, Any] = {'sentence': condition.sentence, 'disturbance': condition.disturbance}
    rows = {
        label: {
            'all': figures(episodes.values()),
            'tasks': {
                task: figures(_of_task(result, label, condition, task)) for task in stage.tasks
            },
            'outcomes': _outcomes(stage, episodes),
        }
        for label, episodes in by_variant.items()
    }
    report['variants'] = rows
    unpruned = next((v.label for v in stage.variants if v.method == UNPRUNED), None)
    if unpruned is not None:
        others = [v.label for v in stage.variants if v.label != unpruned]
        report['against_unpruned'] = _family(by_variant, [(unpruned, label) for label in others])
    for name, candidate, others_of in (
        ('candidate_against_rivals', stage.candidate, _rivals),
        ('candidate_against_ablations', stage.ablations_of or stage.candidate, _ablations),
    ):
        own = [v for v in stage.variants if v.label.partition('@')[0] == candidate]
        pairs = [(other.label, one.label) for one in own for other in others_of(stage, one)]
        if pairs:
            report[name] = _family(by_variant, pairs)
    return report


def _rivals(stage: Stage, candidate: Variant) -> list[Variant]:
    """Return other methods with the same keep ratio, without the unpruned one and the oracle."""
    return [
        variant
        for variant in stage.variants
        if variant.method not in {UNPRUNED, STUDY_ONLY, candidate.method}
        and variant.keep_ratio == candidate.keep_ratio
    ]


def _ablations(stage: Stage, candidate: Variant) -> list[Variant]:
    """Return the same method with other settings and the same keep ratio."""
    return [
        variant
        for variant in stage.variants
        if variant.method == candidate.method
        and variant.label != candidate.label
        and variant.keep_ratio == candidate.keep_ratio
    ]


def _family(
    by_variant: Mapping[str, Episodes], pairs: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    rows = [
        {'first': first, 'second': second, **compare(by_variant[first], by_variant[second])}
        for first, second in pairs
    ]
    for row, adjusted in zip(rows, holm([row['p'] for row in rows]), strict=True):
        row['p_holm'] = adjusted
    return rows


def _judge(goal: Goal, stage: Stage, report: Mapping[str, Any]) -> dict[str, Any]:
    """Tell whether a goal was met; under the first condition of the stage."""
    rows = report['variants']
    own = rows[goal.variant]['all']
    verdict: dict[str, Any] = {**asdict(goal), 'met': False, 'text': ''}
    than = goal.than or _best_rival(goal, stage, rows)
    if than is None:
        verdict['text'] = (
            f'no rival of {goal.variant} within {100 * (goal.macs_within or 0):.0f} % of its '
            'multiply-accumulates: not judged'
        )
        return {**verdict, 'met': None}
    family = [
        *report.get('against_unpruned', ()),
        *report.get('candidate_against_rivals', ()),
    ]
    row = next((r for r in family if (r['first'], r['second']) == (than, goal.variant)), None)
    if row is None or not row['scenes']:
        return {**verdict, 'met': None, 'text': f'{goal.variant} and {than} have no scene yet'}
    low, high = row['difference_interval_95']
    text = (
        f'{goal.variant} minus {than}: {100 * row["difference"]:+.1f} points '
        f'[{100 * low:+.1f}, {100 * high:+.1f}] on {row["scenes"]} scenes, '
        f'p = {row["p_holm"]:.2g} (Holm), at {100 * own["decoder_macs_share"]:.1f} % of the '
        'multiply-accumulates'
    )
    cheap = goal.most_macs_share is None or own['decoder_macs_share'] <= goal.most_macs_share
    if goal.margin_points is not None:
        met = low > -goal.margin_points / 100.0
        separated = True
    else:
        separated = row['p_holm'] < SIGNIFICANT
        met = separated and row['difference'] > 0.0
    word = 'met' if met and cheap else 'not met' if separated else 'not separated'
    if met and not cheap:
        word = 'not met, it costs more than allowed'
    return {**verdict, 'than': than, 'met': bool(met and cheap), 'text': f'{text}: {word}'}


def _best_rival(goal: Goal, stage: Stage, rows: Mapping[str, Any]) -> str | None:
    """Return the rival with most successes among those that cost about as much."""
    own = rows[goal.variant]['all']['decoder_macs_share']
    near = [
        rival.label
        for rival in _rivals(stage, stage.variant(goal.variant))
        if goal.macs_within is None
        or abs(rows[rival.label]['all']['decoder_macs_share'] / max(own, 1e-9) - 1.0)
        <= goal.macs_within
    ]
    return max(near, key=lambda label: rows[label]['all']['success_rate'], default=None)


def _outcomes(stage: Stage, episodes: Episodes) -> str:
    """Return one sign per scene in the stage's order: 1 solved, 0 not, - has not run."""
    found = (episodes.get(scene.name) for scene in stage.scenes)
    return ''.join('-' if one is None else str(int(one.success)) for one in found)


def _of_task(
    result: StageResult, label: str, condition: Condition, task: str
) -> list[EpisodeSummary]:
    return [
        result.episodes[cell.key]
        for cell in result.cells
        if (cell.variant, cell.condition, cell.scene.task) == (label, condition, task)
        if cell.key in result.episodes
    ]


def _share(episodes: Sequence[EpisodeSummary], part: str, whole: str) -> float:
    total = sum(getattr(episode, whole) for episode in episodes)
    return sum(getattr(episode, part) for episode in episodes) / total if total else 0.0


def _weighed(every: Sequence[EpisodeSummary], name: str) -> float | None:
    episodes = [episode for episode in every if getattr(episode, name) is not None]
    passes = sum(episode.inferences for episode in episodes)
    if not passes:
        return None
    return float(sum(getattr(episode, name) * episode.inferences for episode in episodes) / passes)


# Tables.


def make_markdown(report: Mapping[str, Any]) -> str:
    """Lay a report out as Markdown: a table per condition, one per task, and the goals."""
    parts = []
    for condition in report['conditions']:
        if len(report['conditions']) > 1:
            name = condition['disturbance'] or f'{condition["sentence"]} sentence'
            parts.append(f'**{name.replace("_", " ")}**')
        parts.append(_markdown_table(main_rows(condition)))
        parts.append(_markdown_table(task_rows(condition)))
        for kind in ('rival', 'ablation'):
            family = condition.get(f'candidate_against_{kind}s')
            if family:
                parts.append(_markdown_table(rival_rows(family, kind)))
    parts += [f'- {goal["text"]}' for goal in report['goals']]
    if not report['complete']:
        parts.insert(0, '_Not complete: episodes are missing._')
    return '\n\n'.join(parts)


def main_rows(condition: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the first table: a row of titles, then a row per variant."""
    against = {row['second']: row for row in condition.get('against_unpruned', ())}
    columns: dict[str, Callable[[str, Mapping[str, Any]], str]] = {
        'method': lambda label, _: f'`{label}`',
        'success [95 %]': lambda _, f: _percent(f['success_rate'], f['success_interval_95']),
        'lost / won': lambda label, _: _counts(against.get(label)),
        'difference [95 %]': lambda label, _: _difference(against.get(label)),
        'p (Holm)': lambda label, _: _p(against.get(label)),
        'asked / wrong bowl first': lambda _, f: (
            f'{f["asked_lifted_first"]} / {f["wrong_lifted_first"]} of {f["episodes"]}'
        ),
        'tokens': lambda _, f: f'{100 * f["tokens_computed_share"]:.1f} %',
        'full passes': lambda _, f: f'{100 * f["full_pass_share"]:.1f} %',
        'MACs': lambda _, f: f'{100 * f["decoder_macs_share"]:.1f} %',
        'GMAC/s': lambda _, f: f'{f["decoder_macs_per_s"] / 1e9:.2f}',
        'error / bias, mm': lambda _, f: _error(f),
        'seconds': lambda _, f: f'{f["mean_duration_s"]:.2f}',
    }
    return _rows(columns, condition)


def task_rows(condition: Mapping[str, Any]) -> list[list[str]]:
    """Return the cells of the table of tasks: solved of run."""
    tasks = list(next(iter(condition['variants'].values()))['tasks'])
    rows = [['solved', *tasks]]
    for label, figures_of in condition['variants'].items():
        each = (figures_of['tasks'][task] for task in tasks)
        rows.append([f'`{label}`', *(f'{f["successes"]}/{f["episodes"]}' for f in each)])
    return rows


def rival_rows(family: Sequence[Mapping[str, Any]], kind: str) -> list[list[str]]:
    """Return the cells of the comparison of the candidate with its rivals, or ablations."""
    rows = [['candidate', kind, 'lost / won', 'difference [95 %]', 'p (Holm)', 'error, mm']]
    for row in family:
        error = ''
        if 'error_difference_mm' in row:
            low, high = row['error_difference_interval_95']
            error = f'{row["error_difference_mm"]:+.2f} [{low:+.2f}, {high:+.2f}]'
        names = f'`{row["second"]}`', f'`{row["first"]}`'
        rows.append([*names, _counts(row), _difference(row), _p(row), error])
    return rows


def _rows(
    columns: Mapping[str, Callable[[str, Mapping[str, Any]], str]], condition: Mapping[str, Any]
) -> list[list[str]]:
    rows = [
        [cell(label, figures_of['all']) for cell in columns.values()]
        for label, figures_of in condition['variants'].items()
    ]
    filled = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    return [
        [list(columns)[index] for index in filled],
        *([row[index] for index in filled] for row in rows),
    ]


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    titles, *rest = rows
    lines = [titles, ['---', *['--:'] * (len(titles) - 1)], *rest]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _percent(rate: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f'{100 * rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]'


def _counts(row: Mapping[str, Any] | None) -> str:
    return '' if row is None else f'{row["lost"]} / {row["won"]}'


def _difference(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ''
    low, high = row['difference_interval_95']
    return f'{100 * row["difference"]:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]'


def _p(row: Mapping[str, Any] | None) -> str:
    return '' if row is None else f'{row["p_holm"]:.2g}'


def _error(row: Mapping[str, Any]) -> str:
    if row['action_error_mm'] is None:
        return ''
    return f'{row["action_error_mm"]:.2f} / {row["action_bias_mm"]:.2f}'
