"""An instruction is a sentence: a longer text is refused, wherever it comes from."""

from __future__ import annotations

import pytest
from runtime_fakes import Bench, FakePolicy, control

from safe_vla_ros.errors import ObservationError, ParameterError, shortened
from safe_vla_ros.runtime import StateName, diagnostics
from safe_vla_ros.runtime.instructions import LONGEST_INSTRUCTION, clean_instruction
from safe_vla_ros.runtime.parameters import check_values
from safe_vla_ros.types import MessageHeader

LONGEST = 'x' * LONGEST_INSTRUCTION
SENTENCE = 'instruction has 1001 characters; allowed are 1000'


def test_the_longest_instruction_may_have_blanks_around_it() -> None:
    assert clean_instruction(f'  {LONGEST}\n') == LONGEST
    assert check_values({'instruction': LONGEST + '  '})['instruction'] == LONGEST + '  '
    with pytest.raises(ObservationError, match=SENTENCE):
        clean_instruction(LONGEST + 'x')


def test_a_refused_instruction_leaves_the_old_one_in_force_and_the_arm_moving() -> None:
    bench = Bench()
    bench.run(1.0)
    with pytest.raises(ObservationError, match='1000001 characters'):
        bench.runtime.set_instruction('x' * 1_000_001)
    bench.run(1.0)
    assert bench.state is StateName.RUNNING
    assert {report.outcome.observation.instruction for report in bench.reports} == {'reach'}
    assert {report.job.episode for report in bench.reports} == {1}


def test_the_initial_instruction_has_the_same_bound() -> None:
    with pytest.raises(ObservationError, match=SENTENCE):
        Bench(instruction=LONGEST + 'x')
    with pytest.raises(ParameterError, match=rf'^instruction = .*: {SENTENCE}$') as caught:
        check_values({'instruction': LONGEST + 'x'})
    assert len(str(caught.value)) < 500


def test_no_text_parameter_is_longer_than_a_page() -> None:
    with pytest.raises(ParameterError, match=r'^hardware_id = .*has 5000 characters') as caught:
        check_values({'hardware_id': 'x' * 5000})
    assert len(str(caught.value)) < 500


def test_what_is_told_about_an_inference_is_cut() -> None:
    bench = Bench(instruction=LONGEST)
    bench.run(1.0)
    told = diagnostics.report_values(bench.reports[-1])['instruction']
    assert told == shortened(LONGEST)
    assert (len(told), told[-1]) == (300, '…')
    assert bench.reports[-1].outcome.observation.instruction == LONGEST
    inputs = diagnostics.input_values(bench.runtime.statistics(), {})
    assert inputs['instruction'] == told


def test_what_an_error_says_is_cut() -> None:
    def fail(_: object) -> None:
        raise RuntimeError('x' * 10**6)

    bench = Bench(FakePolicy(fail))
    bench.run(0.5)
    assert len(bench.reports[-1].outcome.error) == 300
    assert len(bench.reason) < 500


def test_a_frame_of_any_length_makes_a_short_reason() -> None:
    bench = Bench(settings=control(frame='ee'))
    bench.inputs.discard('ee_pose')
    bench.runtime.put_pose((0, 0, 0), (0, 0, 0, 1), header=MessageHeader.at(1.0, 'x' * 10**6))
    bench.run(0.5)
    assert 'ee_pose is in frame' in bench.reason
    assert len(bench.reason) < 500
