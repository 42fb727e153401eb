"""The gripper is told on a change above 0.02 and once a second, and only while something plays."""

from __future__ import annotations

import pytest
from runtime_fakes import Bench, FakePolicy, steady_chunk

from safe_vla_ros.runtime.gripper import GripperOutput


def test_the_first_opening_is_due_at_once() -> None:
    assert GripperOutput().due(0.4, 0.02) == 0.4


@pytest.mark.parametrize(('opening', 'due'), [(0.41, None), (0.42, None), (0.43, 0.43)])
def test_a_change_is_due_when_it_is_above_two_hundredths(opening: float, due: float | None) -> None:
    output = GripperOutput()
    output.due(0.4, 0.02)
    assert output.due(opening, 0.02) == due


def test_small_changes_add_up() -> None:
    output = GripperOutput()
    published = [output.due(0.4 + 0.01 * i, 0.02) for i in range(6)]
    assert [value is not None for value in published] == [True, False, False, True, False, False]


def test_the_same_opening_is_repeated_once_a_second() -> None:
    output = GripperOutput()
    due = [output.due(0.5, 0.02) for _ in range(151)]
    assert [i for i, value in enumerate(due) if value is not None] == [0, 50, 100, 150]


@pytest.mark.parametrize(('opening', 'published'), [(-0.2, 0.0), (1.3, 1.0)])
def test_openings_stay_between_closed_and_open(opening: float, published: float) -> None:
    assert GripperOutput().due(opening, 0.02) == published


def test_a_halt_neither_moves_nor_repeats_the_gripper() -> None:
    openings = iter([1.0] + [0.0] * 100)
    bench = Bench(FakePolicy(lambda _: steady_chunk(gripper=next(openings))))
    before = [command.gripper for command in bench.run(0.18) if command]
    bench.runtime.pause(True)
    after = bench.run(3.0)
    assert before[0] == 1.0
    assert any(command is not None for command in after)
    assert all(command.gripper is None for command in after if command)
