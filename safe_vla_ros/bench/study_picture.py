"""Success against multiply-accumulates of the variants of a study, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from safe_vla_ros.bench.study_plan import UNPRUNED
from safe_vla_ros.bench.study_report import STUDY_ONLY
from safe_vla_ros.whole_files import written_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00', '#7f7f7f')
"""Okabe and Ito's colours, which colour-blind people tell apart; black is for the unpruned one."""

MARKERS = 'osD^vPX*<>p'


def draw_pareto(report: Mapping[str, Any], path: Path, *, condition: int = 0) -> None:
    """Draw one condition of a report.

    Every method is a point with the 95 % interval of its success; where a method ran with several
    keep ratios, its points are joined. To the upper left is better.

    Args:
        report: Of ``study_report.make_report``.
        path: PNG or SVG file, by its suffix.
        condition: Which one of the report.
    """
    import matplotlib as mpl  # noqa: PLC0415  (takes a second; only pictures need it)

    mpl.use('Agg')
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = report['conditions'][condition]['variants']
    whole = _unpruned_macs_per_s(rows)
    groups = drawn(report)
    ratios = {label.partition('@')[2] for labels in groups.values() for label in labels} - {''}
    figure, axes = plt.subplots(figsize=(9.0, 5.2), constrained_layout=True)
    count = 0
    for group, labels in groups.items():
        method = report['variants'][labels[0]]['method']
        if method == UNPRUNED and group == UNPRUNED:
            colour, marker = 'black', 'o'
        else:
            colour, marker = COLOURS[count % len(COLOURS)], MARKERS[count % len(MARKERS)]
            count += 1
        held = [label for label in labels if rows[label]['all']['episodes']]
        points = sorted((_point(rows[label]['all'], whole), label) for label in held)
        if not points:
            continue
        xs, ys = [x for (x, _, _), _ in points], [y for (_, y, _), _ in points]
        bars = list(zip(*(errors for (_, _, errors), _ in points), strict=True))
        axes.errorbar(
            xs,
            ys,
            yerr=bars,
            color=colour,
            marker=marker,
            markersize=7,
            markerfacecolor='none' if group != UNPRUNED else None,
            markeredgewidth=1.6,
            linewidth=1.2,
            elinewidth=0.9,
            capsize=2.5,
            label=group,
        )
        for (x, y, _), label in points:
            text = label.partition('@')[2] if len(ratios) > 1 else group
            if text:
                axes.annotate(
                    text,
                    (x, y),
                    xytext=(5, 4),
                    textcoords='offset points',
                    fontsize=8,
                    color=colour,
                )
    axes.set_xlabel(
        "decoder's multiply-accumulates per second, full passes included, % of unpruned"
    )
    axes.set_ylabel('success, % (95 % interval)')
    axes.set_xlim(0, 106)
    axes.set_ylim(top=102)
    axes.grid(color='#e4e4e4')
    axes.set_axisbelow(True)
    for side in ('top', 'right'):
        axes.spines[side].set_visible(False)
    episodes = max((row['all']['episodes'] for row in rows.values()), default=0)
    keep = f', keep ratio {next(iter(ratios))}' if len(ratios) == 1 else ''
    axes.set_title(
        f'{report["policy"]}, {episodes} episodes per point{keep}', fontsize=11, loc='left', pad=14
    )
    if len(ratios) != 1:
        axes.legend(frameon=False, fontsize=9, loc='upper left', bbox_to_anchor=(1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        figure.savefig(partial, format=path.suffix[1:], dpi=150)
    plt.close(figure)


def drawn(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the labels in the picture, by label without keep ratio.

    Other settings of a method that is there too, its ablations, are left out, and so is the oracle,
    which costs more than no pruning.
    """
    groups: dict[str, list[str]] = {}
    for label in report['variants']:
        groups.setdefault(label.partition('@')[0], []).append(label)
    methods = {group: report['variants'][labels[0]]['method'] for group, labels in groups.items()}
    return {
        group: labels
        for group, labels in groups.items()
        if methods[group] != STUDY_ONLY
        and (methods[group] in {UNPRUNED, group} or methods[group] not in groups)
    }


def _unpruned_macs_per_s(rows: Mapping[str, Any]) -> float | None:
    """Return what the unpruned policy spends at its usual rate; None where it did not run."""
    row = rows.get(UNPRUNED)
    if row is None or not row['all']['episodes']:
        return None
    return float(row['all']['decoder_macs_per_s'])


def _point(row: Mapping[str, Any], whole: float | None) -> tuple[float, float, tuple[float, float]]:
    """Return share of multiply-accumulates, success and the two arms of its bar, all in %.

    The share is that per second of the episodes, so that rarer passes count.
    """
    low, high = row['success_interval_95']
    rate = row['success_rate']
    below, above = max(0.0, rate - low), max(0.0, high - rate)
    share = row['decoder_macs_per_s'] / whole if whole else row['decoder_macs_share']
    return 100 * share, 100 * rate, (100 * below, 100 * above)
