"""What an instruction may be, from wherever it comes."""

from __future__ import annotations

from safe_vla_ros.errors import ObservationError

LONGEST_INSTRUCTION = 1000
"""Characters; the policies read a sentence."""


def clean_instruction(text: str) -> str:
    """Return an instruction without the blanks around it.

    Args:
        text: The task in words, from a topic, a parameter or a bag; may be empty.

    Raises:
        ObservationError: It is longer than ``LONGEST_INSTRUCTION``.
    """
    text = text.strip()
    if len(text) > LONGEST_INSTRUCTION:
        msg = f'instruction has {len(text)} characters; allowed are {LONGEST_INSTRUCTION}'
        raise ObservationError(msg)
    return text
