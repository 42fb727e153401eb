"""Joins the results of several replays, for example the shards of a cluster's job array."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from safe_vla_ros.bounded_files import read_json
from safe_vla_ros.replay.bag_replay import RESULT
from safe_vla_ros.replay.errors import ReplayError
from safe_vla_ros.replay.output import BAGS, ResultFolder, read_summary
from safe_vla_ros.replay.replay_summary import FORMAT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SAME = ('version', 'settings', 'bag_list')
"""What the results must have in common."""


def merge(folders: Sequence[Path], out: Path, *, overwrite: bool) -> dict[str, Any]:
    """Join results of the same settings and the same list of bags.

    Args:
        folders: Finished results, each of some of the bags.
        out: Folder of the joined result.
        overwrite: Whether it may replace an older result.

    Returns:
        The joined summary: that of one replay of all the bags, but for what wall-clock time says.

    Raises:
        ReplayError: A folder is no result, the results do not fit together, or a bag is in two.
    """
    summaries = [read_summary(folder) for folder in folders]
    _check_same(folders, summaries)
    found: dict[str, Path] = {}
    for folder, summary in zip(folders, summaries, strict=True):
        for bag in summary['bags']:
            if bag['key'] in found:
                msg = f'bag {bag["bag"]} is in {found[bag["key"]]} and in {folder}'
                raise ReplayError(msg)
            found[bag['key']] = folder
    with ResultFolder(out, overwrite=overwrite, sources=folders) as target:
        results = []
        for key, folder in found.items():
            shutil.copytree(folder / BAGS / key, target.bag(key))
            results.append(read_json(target.bag(key) / RESULT, ReplayError))
        first = summaries[0]
        header = {'version': first['version'], 'settings': first['settings'], 'shard': None}
        return target.publish(header, first['bag_list'], results)


def _check_same(folders: Sequence[Path], summaries: Sequence[dict[str, Any]]) -> None:
    for folder, summary in zip(folders, summaries, strict=True):
        if summary['format'] != FORMAT:
            msg = f'{folder} has format {summary["format"]}; this program reads {FORMAT}'
            raise ReplayError(msg)
        for name in SAME:
            if summary[name] != summaries[0][name]:
                differing = _first_difference(summaries[0][name], summary[name])
                msg = f'{folders[0]} and {folder} differ in {name}{differing}'
                raise ReplayError(msg)


def _first_difference(left: Any, right: Any) -> str:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted({*left, *right}):
            if left.get(key) != right.get(key):
                return f' {key}{_first_difference(left.get(key), right.get(key))}'
    if isinstance(left, list) and isinstance(right, list):
        return f': {len(left)} and {len(right)} entries' if len(left) != len(right) else ''
    return f': {left!r} and {right!r}'
